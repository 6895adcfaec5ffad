"""Checkpoints that hold whole steps: taken when a step is logged and validated."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L

from lit_mbldm.training.resume.last_checkpoint import last_keeper, save_last

_HOOKS = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")


class SaveBetweenSteps(L.Callback):
    """Puts off what ModelCheckpoint does at the end of a batch, of validation or of an epoch.

    It is done before the next batch that begins an optimiser step, or when all of an epoch is
    logged; then `then` is called. Lightning saves earlier: before the step's losses are logged,
    before validation, and while gradients accumulate, which no checkpoint holds.
    """

    def __init__(self, then: Callable[[L.Trainer], None]) -> None:
        self._then = then
        self._due: dict[tuple[Any, str], Callable[[], None]] = {}

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Take the place of the checkpoints' hooks, and get a turn between steps."""
        fit: Any = trainer.fit_loop
        if isinstance(fit.on_run_end, partial):
            return  # it has them since an earlier fit of this trainer
        for callback in trainer.checkpoint_callbacks:
            for hook in _HOOKS:
                setattr(callback, hook, partial(self._put_off, callback, getattr(callback, hook)))
        fit.epoch_loop.advance = partial(self._advance, trainer, fit.epoch_loop.advance)
        epochs = fit.epoch_progress  # counts an epoch as completed when all of it is logged
        epochs.increment_completed = partial(self._end_epoch, trainer, epochs.increment_completed)
        fit.on_run_end = partial(self._end, trainer, fit.on_run_end)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin a new epoch where the checkpoint holds a whole one, and leave no file twice.

        A killed run may have saved a file after its last.ckpt: what is saved again replaces it.
        """
        epochs, loop = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop
        if epochs.ready == epochs.completed:
            loop.restarting = False
        if os.path.basename(trainer.ckpt_path or "") == "last.ckpt":
            for callback in trainer.checkpoint_callbacks:
                vars(callback)["_enable_version_counter"] = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Count an epoch that ends as completed."""
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            counts["completed"] = counts["processed"]

    def _put_off(self, callback: Any, hook: Callable[..., None], trainer: Any, *rest: Any) -> None:
        if not trainer.sanity_checking:
            self._due[callback, hook.__name__] = partial(hook, trainer, *rest)

    def _advance(self, trainer: L.Trainer, advance: Callable[..., None], fetcher: Any) -> None:
        """Save, then train on the next batch."""
        loop = trainer.fit_loop.epoch_loop
        loop.restarting = False  # no batch of the checkpoint is half done
        if loop._batches_that_stepped < trainer.global_step:
            for callback in trainer.checkpoint_callbacks:
                callback.on_train_batch_end(trainer, trainer.lightning_module, None, None, 0)
            return  # saved before the step's validation, to which Lightning comes next
        if not loop._should_accumulate():
            self._save(trainer)
            self._then(trainer)
        advance(fetcher)

    def _end_epoch(self, trainer: L.Trainer, increment_completed: Callable[[], None]) -> None:
        """Save while it is still this epoch, which names files."""
        if not trainer.fit_loop._should_accumulate():
            self._save(trainer)
        increment_completed()

    def _save(self, trainer: L.Trainer) -> None:
        for callback in reversed(trainer.checkpoint_callbacks):  # last.ckpt is mostly the first's
            for hook in _HOOKS:
                self._due.pop((callback, hook), lambda: None)()

    def _end(self, trainer: L.Trainer, on_run_end: Callable[[], None]) -> None:
        """Save, unless it is done, before averaged weights take the place of the others."""
        keeper = last_keeper(trainer)
        saved = keeper is None or keeper._last_global_step_saved == trainer.global_step
        if not saved and not trainer.fit_loop._should_accumulate():
            save_last(trainer)
        on_run_end()
