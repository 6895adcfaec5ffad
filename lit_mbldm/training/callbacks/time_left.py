"""How long training goes on, in its progress bar."""

from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import lightning as L


class TimeLeft(L.Callback):
    """Adds the time left to the trainer's `max_steps` to any progress bar that it has.

    The pace is the mean of this run since its first batch: validation and pictures count.
    """

    _first: tuple[float, int] | None = None  # time and step after the first batch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take a place among what the bar shows."""
        bar = trainer.progress_bar_callback
        if bar is not None and trainer.max_steps > 0:
            bar.get_metrics = partial(self._shown, bar.get_metrics)  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Begin to count after the first batch, which may compile."""
        self._first = self._first or (monotonic(), trainer.global_step)

    def _shown(self, get_metrics: Any, trainer: L.Trainer, *args: Any) -> dict[str, Any]:
        metrics: dict[str, Any] = get_metrics(trainer, *args)
        if self._first is None or trainer.global_step <= self._first[1]:
            return metrics
        pace = (monotonic() - self._first[0]) / (trainer.global_step - self._first[1])
        left = round(pace * (trainer.max_steps - trainer.global_step))
        return {"left": str(timedelta(seconds=left)), **metrics}
