"""PowerEMA: averaged weights whose horizon grows with the run."""

import warnings
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from lit_mbldm.errors import InputError


class PowerEMA(WeightAveraging):
    """Averages weights over the last share of training, however long it is.

    Step n weighs as n^γ, so that the first, noisy weights are soon forgotten, in a run of a hundred
    steps as in one of a million. Validation, samples and what a run ends with use the average.

    Source: Karras et al. 2024, Analyzing and improving the training dynamics of diffusion models,
    section 3.1.

    Args:
        width: standard deviation of the averaged steps, as a share of the run, in (0, 0.28).
        device: of the average; None is the model's.

    Raises:
        InputError: another width.
    """

    def __init__(self, width: float = 0.1, device: str | None = None) -> None:
        if not 0 < width < 0.28:
            raise InputError(f"Expected a width of the average from 0 to 0.28, got {width}.")
        gamma = power_of_width(width)

        def average(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
            # `count` steps are in the average before this one
            beta = (1 - 1 / (int(count) + 1)) ** (gamma + 1)
            torch._foreach_lerp_(averaged, current, 1 - beta)

        super().__init__(device, use_buffers=False, multi_avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the model, whose layers `configure_model` makes first; none is sharded."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*overrides the configure_model.*")
            super().setup(trainer, pl_module, stage)


def power_of_width(width: float) -> float:
    """The γ of an average of this relative standard deviation (Karras et al. 2024, equation 127).

    It solves width² (γ+2)² (γ+3) = γ+1.
    """
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
