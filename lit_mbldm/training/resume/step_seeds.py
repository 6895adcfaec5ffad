"""Random numbers of layers such as dropout, which draw from torch's own generator."""

import random
from typing import Any

import lightning as L
import torch

from lit_mbldm.parallel.ranks import from_first

# no callback state, which Lightning misses aloud where a checkpoint is only tested
_KEY = "step_seeds"


class StepSeeds(L.Callback):
    """Seeds torch before each batch from (seed, epoch, batch, process).

    So a resumed run draws what the unbroken one would have, whatever else was drawn before.
    """

    def __init__(self) -> None:
        self._seed: int | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Take the run's seed, unless a checkpoint brought it."""
        if self._seed is None:
            self._seed = from_first(torch.initial_seed(), pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Seed the CPU's generator and those of accelerators."""
        key = f"{self._seed}/{trainer.current_epoch}/{batch_idx}/{trainer.global_rank}"
        torch.manual_seed(random.Random(key).getrandbits(63))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the run's seed."""
        checkpoint[_KEY] = self._seed

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Take over the run's seed."""
        self._seed = checkpoint.get(_KEY)
