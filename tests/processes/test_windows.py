from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes.windows import spans, windowed


@pytest.mark.parametrize(
    ("length", "side", "overlap"), [(5, 8, 2), (8, 8, 2), (9, 8, 2), (61, 8, 3)]
)
def test_windows_reach_both_ends_and_overlap(length: int, side: int, overlap: int) -> None:
    parts = spans(length, side, overlap)
    assert parts[0].start == 0
    assert parts[-1].stop == length
    assert all(part.stop - part.start == min(side, length) for part in parts)
    assert all(a.stop - b.start >= overlap for a, b in pairwise(parts))


def test_what_looks_at_a_position_alone_sees_no_windows() -> None:
    def denoiser(z_t: Tensor, time: Tensor, self_condition: Tensor, condition: Tensor) -> Tensor:
        return 2 * z_t + self_condition * condition + time.view(-1, 1, 1, 1)

    z_t, estimate, told = torch.randn(3, 2, 2, 21, 13)
    inputs = z_t, torch.rand(2), estimate, told
    seen = []
    drawn = windowed(denoiser, 8, 2, lambda: seen.append(1))(*inputs)
    assert torch.allclose(drawn, denoiser(*inputs), atol=1e-5)
    assert len(seen) == len(spans(21, 8, 2)) * len(spans(13, 8, 2)) == 8


def test_a_latent_that_is_no_larger_is_one_window_and_a_head_comes_after() -> None:
    torch.manual_seed(0)
    network = UNet(2, 6, 8, (1,), 1).eval()
    torch.nn.init.normal_(network.head.weight)
    wrapped = windowed(network, 8, 2)
    small, large = (torch.randn(1, 2, side, 8) for side in (6, 12))
    for z_t in (small, large):
        inputs = z_t, torch.rand(1), torch.zeros_like(z_t), torch.tensor([3])
        with torch.no_grad():
            drawn, headed = wrapped(*inputs), wrapped.head(wrapped.features(*inputs))  # type: ignore[attr-defined]
            assert torch.allclose(drawn, headed, atol=1e-4)
            assert torch.allclose(drawn, network(*inputs), atol=1e-4) == (z_t is small)
