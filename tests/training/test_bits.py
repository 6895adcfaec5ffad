from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import BernoulliProcess
from lit_mbldm.training import BernoulliDiffusion
from lit_mbldm.training.callbacks import bits


def test_times_of_the_bound_are_even_far_into_a_large_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def bound(process: Any, denoiser: Any, z0: Tensor, t: Tensor, streams: Any) -> Tensor:
        seen.append(t)
        return torch.zeros(len(t))

    monkeypatch.setattr(bits, "bound", bound)
    unet = UNet(None, None, 8, (1,), 1)
    model = BernoulliDiffusion("opq-32-8-8", unet, BernoulliProcess(1000), 16)
    bits._bits(model, torch.zeros(1000, 6, 2, 2, dtype=torch.uint8), first=100_000)
    counts = torch.cat(seen).bincount(minlength=1001)
    assert counts[0] == 0
    assert counts[1:].min() >= 4
    assert counts[1:].max() <= 12  # of 8 on average
