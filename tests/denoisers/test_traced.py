"""A denoiser under torch.export returns its own numbers, at any batch size."""

import pytest
import torch
from torch import nn

from lit_mbldm.denoisers import TokenTransformer, UNet
from lit_mbldm.denoisers.base import HeadedNetwork


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    z, estimate = torch.randn(2, batch, 3, 6, 6)
    return z, torch.rand(batch), estimate, torch.arange(batch) % 3 - 1


@pytest.mark.parametrize(
    "network", [UNet(3, 4, 8, (1, 2), 1), TokenTransformer(width=8, depth=1, num_heads=2)]
)
def test_a_traced_denoiser_returns_equal_numbers(network: HeadedNetwork) -> None:
    torch.manual_seed(0)
    if isinstance(network, TokenTransformer):
        network.set_channels(3, 4)
        network.set_grid(6, 6)
    network.set_classes(2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    batch = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        traced = torch.export.export(network.eval(), inputs(2), dynamic_shapes=(batch,) * 4)
        for size in (1, 5):
            given = inputs(size)
            expected = network(*given)
            torch.testing.assert_close(traced.module()(*given), expected)
            assert expected.std() > 0.1
