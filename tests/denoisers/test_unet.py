import pytest
import torch

from lit_mbldm.denoisers import UNet
from lit_mbldm.denoisers.layers import pad_to_even


def test_shapes_time_and_self_conditioning_reach_the_output() -> None:
    torch.manual_seed(0)
    unet = UNet(6, 12, base_channels=16, channel_multipliers=(1, 2))
    torch.nn.init.normal_(unet.head.weight)
    for layer in unet.modules():
        if isinstance(layer, torch.nn.Conv2d) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.05)
    z, time = torch.randn(2, 6, 4, 6), torch.tensor([0.1, 0.9])
    out = unet(z, time, torch.zeros_like(z))
    assert out.shape == (2, 12, 4, 6)
    assert not torch.allclose(out, unet(z, time + 0.05, torch.zeros_like(z)))
    assert not torch.allclose(out, unet(z, time, torch.ones_like(z)))


def test_the_head_maps_the_features_site_by_site() -> None:
    torch.manual_seed(0)
    unet = UNet(6, 12, 16, (1, 2), 1)
    torch.nn.init.normal_(unet.head.weight)
    z, time = torch.randn(2, 6, 4, 6), torch.tensor([0.1, 0.9])
    features = unet.features(z, time, torch.zeros_like(z))
    assert features.shape == (2, 16, 4, 6)
    one_site = torch.einsum("oc,bc->bo", unet.head.weight[:, :, 0, 0], features[:, :, 1, 2])
    expected = unet(z, time, torch.zeros_like(z))[:, :, 1, 2]
    torch.testing.assert_close(one_site + unet.head.bias, expected)


def test_checkpoints_of_version_0_1_fit() -> None:
    """Names and order of the parameters: optimisers keep their state by the order."""
    names = [name for name, _ in UNet(6, 6, 16, (1, 2), 1).named_parameters()]
    parts = dict.fromkeys(name.split(".")[0] for name in names)
    expected = "time stem down widen middle attention up narrow last head_norm head"
    assert " ".join(parts) == expected
    block = dict.fromkeys(n.split(".")[3] for n in names if n.startswith("up.0.0."))
    assert list(block) == ["norm1", "conv1", "time", "norm2", "conv2", "skip"]


def test_starts_at_zero() -> None:
    unet = UNet(6, 6, base_channels=16, channel_multipliers=(1, 2))
    z = torch.randn(1, 6, 4, 4)
    assert (unet(z, torch.tensor([0.5]), z) == 0).all()


def test_attention_is_at_the_bottleneck_only() -> None:
    names = [n for n, _ in UNet(6, 6, 16, (1, 2, 4)).named_modules() if "qkv" in n]
    assert names == ["attention.qkv"]


def test_paper_s_size_has_about_51_7_million_parameters() -> None:
    with torch.device("meta"):
        unet = UNet(6, 6, base_channels=80, channel_multipliers=(1, 2, 4, 8))
    count = sum(p.numel() for p in unet.parameters())
    assert abs(count / 51.7e6 - 1) < 0.01


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 6), (13, 38)])
def test_any_size_of_latent_fits_and_even_ones_are_not_padded(height: int, width: int) -> None:
    torch.manual_seed(0)
    unet = UNet(6, 6, 16, (1, 2, 2), 1)
    torch.nn.init.normal_(unet.head.weight)
    z = torch.randn(2, 6, height, width)
    out = unet(z, torch.rand(2), z)
    assert out.shape == z.shape
    assert out.isfinite().all()
    even = torch.randn(2, 6, 4, 8)
    assert pad_to_even(even) is even
