"""Consistency tuning: a run that brings a trained model to few steps."""

import math
from typing import Any

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes import ConsistencyProcess
from lit_mbldm.training.diffusion import DiffusionModule


class ConsistencyDiffusion(DiffusionModule):
    """Tuning of a `ContinuousDiffusion` for few steps (Geng et al. 2024, arXiv 2406.14548).

    Args as for `DiffusionModule`; the process is a `ConsistencyProcess`.

    Raises:
        InputError: as `DiffusionModule`; when a run starts that has no end.
    """

    process: ConsistencyProcess
    process_class = ConsistencyProcess

    def on_fit_start(self) -> None:
        """Refuse a run without an end; raises InputError."""
        super().on_fit_start()
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise InputError("Consistency tuning needs a run of known length: set max_steps.")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell the process how far training is."""
        super().on_train_batch_start(batch, batch_idx)
        self.process.progress = self.global_step / self.trainer.estimated_stepping_batches

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the closest times, whatever training is at."""
        self.process.progress = 1.0
        super().validation_step(batch, batch_idx)
