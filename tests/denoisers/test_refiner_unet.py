import pytest
import torch

from lit_mbldm.denoisers import RefinerUNet


def awake(network: RefinerUNet) -> RefinerUNet:
    """The network with every branch that starts at zero switched on."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.05)
    return network


def test_paper_s_size_is_about_1_7_million_parameters() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in RefinerUNet().parameters())
    assert abs(count / 1.7e6 - 1) < 0.05


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (9, 12)])
def test_untrained_it_is_the_identity_on_any_size(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    assert torch.equal(RefinerUNet()(images), images)


def test_a_correction_keeps_to_its_place() -> None:
    """What is unshuffled is shuffled back: a changed corner changes its own surroundings most."""
    network = awake(RefinerUNet(16, (1, 2), 1))
    images = torch.rand(1, 3, 64, 64)
    changed = images.clone()
    changed[..., :8, 56:] = 1 - changed[..., :8, 56:]
    correction = network(changed) - changed - (network(images) - images)
    energy = correction.square().mean(1)[0].unflatten(0, (8, 8)).unflatten(2, (8, 8)).mean((1, 3))
    assert energy.argmax() == 7
    assert energy[0, 7] > 10 * energy[4:].max()


def test_every_parameter_learns() -> None:
    network = awake(RefinerUNet(16, (1, 2, 2), 1))
    network(torch.rand(1, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_dtype_stays() -> None:
    images = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert awake(RefinerUNet(16, (1, 2), 1))(images).dtype == torch.float32
