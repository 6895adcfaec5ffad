"""Cooling the Gumbel-softmax while training."""

from typing import Any

import lightning as L

from lit_mbldm.errors import InputError, check_positive


class AnnealGumbelTemperature(L.Callback):
    """Bring τ of a process's Gumbel-softmax from start to end: τ = start·(end/start)^(i/steps).

    i is the number of optimiser steps taken; from i = steps on τ is constant. Losses at different τ
    are not comparable. Source: Jang et al. 2016, section 2.1, which starts high, where gradients
    vary little, and ends low, near a categorical draw.

    Args:
        start: τ at the first step.
        end: τ after `steps`.
        steps: optimiser steps.

    Raises:
        InputError: a number that is not positive.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        check_positive(start=start, end=end, steps=steps)
        self.start = start
        self.end = end
        self.steps = steps

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Look for a τ to set; raise InputError where the model's process has none."""
        found = getattr(pl_module, "process", pl_module)
        if not hasattr(found, "gumbel_temperature"):
            raise InputError(
                "AnnealGumbelTemperature needs a process with a gumbel_temperature, such as"
                f" CategoricalProcess; a {type(found).__name__} has none. Leave the callback out."
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set τ for the coming step."""
        share = min(trainer.global_step / self.steps, 1.0)
        pl_module.process.gumbel_temperature = self.start * (self.end / self.start) ** share
