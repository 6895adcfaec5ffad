from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.denoisers.layers import pad_to_even

Awake = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("make", "millions", "within"),
    [
        (lambda: UNet(6, 6, base_channels=80, channel_multipliers=(1, 2, 4, 8)), 51.7, 0.01),
        (RefinerUNet, 1.7, 0.05),
    ],
)
def test_the_paper_s_sizes(make: Any, millions: float, within: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in make().parameters())
    assert abs(count / millions / 1e6 - 1) < within


def test_shapes_time_and_self_conditioning_reach_the_output(awake: Awake) -> None:
    unet = awake(UNet(6, 12, base_channels=16, channel_multipliers=(1, 2)))
    z, time = torch.randn(2, 6, 4, 6), torch.tensor([0.1, 0.9])
    out = unet(z, time, torch.zeros_like(z))
    assert out.shape == (2, 12, 4, 6)
    assert not torch.allclose(out, unet(z, time + 0.05, torch.zeros_like(z)))
    assert not torch.allclose(out, unet(z, time, torch.ones_like(z)))


def test_checkpoints_of_version_0_1_fit() -> None:
    """Names and order of the parameters: optimisers keep their state by the order."""
    names = [name for name, _ in UNet(6, 6, 16, (1, 2), 1).named_parameters()]
    parts = dict.fromkeys(name.split(".")[0] for name in names)
    expected = "time stem down widen middle attention up narrow last head_norm head"
    assert " ".join(parts) == expected
    block = dict.fromkeys(n.split(".")[3] for n in names if n.startswith("up.0.0."))
    assert list(block) == ["norm1", "conv1", "time", "norm2", "conv2", "skip"]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 6), (13, 38)])
def test_any_size_of_latent_fits_and_even_ones_are_not_padded(
    height: int, width: int, awake: Awake
) -> None:
    unet, z = UNet(6, 6, 16, (1, 2, 2), 1), torch.randn(2, 6, height, width)
    assert (unet(z, torch.rand(2), z) == 0).all()  # as it starts
    out = awake(unet)(z, torch.rand(2), z)
    assert out.shape == z.shape
    assert out.isfinite().all()
    even = torch.randn(2, 6, 4, 8)
    assert pad_to_even(even) is even


def test_the_layout_without_gradients_changes_no_number(awake: Awake) -> None:
    unet = awake(UNet(6, 6, 16, (1, 2, 2), 1))
    z, time = torch.randn(3, 6, 8, 10), torch.rand(3)
    plain = unet(z, time, z).detach()
    with torch.no_grad():
        found = unet(z, time, z)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (9, 12)])
def test_an_untrained_refiner_is_the_identity_on_any_size(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    assert torch.equal(RefinerUNet()(images), images)


def test_a_refiner_s_correction_keeps_to_its_place(awake: Awake) -> None:
    """What is unshuffled is shuffled back: a changed corner changes its own surroundings most."""
    network = awake(RefinerUNet(16, (1, 2), 1))
    images = torch.rand(1, 3, 64, 64)
    changed = images.clone()
    changed[..., :8, 56:] = 1 - changed[..., :8, 56:]
    correction = network(changed) - changed - (network(images) - images)
    energy = correction.square().mean(1)[0].unflatten(0, (8, 8)).unflatten(2, (8, 8)).mean((1, 3))
    assert energy.argmax() == 7
    assert energy[0, 7] > 10 * energy[4:].max()


def test_every_parameter_of_a_refiner_learns_and_the_dtype_stays(awake: Awake) -> None:
    network = awake(RefinerUNet(16, (1, 2, 2), 1))
    images = torch.rand(1, 3, 32, 32)
    network(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).dtype == torch.float32
