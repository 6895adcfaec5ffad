"""Checkpoints that hold whole steps: taken when a step is logged and validated."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
from torchmetrics import Metric

from lit_mbldm.errors import InputError
from lit_mbldm.training.resume.last_checkpoint import last_keeper, save_last

_HOOKS = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")


class SaveBetweenSteps(L.Callback):
    """Puts off what ModelCheckpoint does at the end of a batch, of validation or of an epoch.

    It is done before the next batch that begins an optimiser step, or when training ends. Lightning
    saves earlier: before the step's figures are logged, before validation, and while gradients
    accumulate, which no checkpoint holds.

    Args:
        then: called after each step when all is saved that is due.
    """

    def __init__(self, then: Callable[[L.Trainer], None] = lambda trainer: None) -> None:
        self._then = then
        self._due: dict[Any, dict[str, Callable[[], None]]] = {}
        self._epoch = 0
        self._loops: dict[str, Any] | None = None
        self._means: list[tuple[Metric, dict[str, Any]]] = []

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Take the place of the checkpoints' hooks, and get a turn between steps."""
        for callback in trainer.checkpoint_callbacks:
            for hook in _HOOKS:
                setattr(callback, hook, partial(self._put_off, callback, getattr(callback, hook)))
        fit: Any = trainer.fit_loop
        fit.epoch_loop.advance = partial(self._advance, trainer, fit.epoch_loop.advance)
        fit.on_advance_end = partial(self._end_epoch, trainer, fit.on_advance_end)
        fit.on_run_end = partial(self._end, trainer, fit.on_run_end)

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare where the processes continue.

        Raises:
            InputError: they do not continue from the same checkpoint.
        """
        first = trainer.strategy.broadcast(trainer.ckpt_path)
        if first != trainer.ckpt_path:
            raise InputError(
                f"Process {trainer.global_rank} continues from {trainer.ckpt_path}, the first one"
                f" from {first}. Let all nodes see the same folder of runs."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin a new epoch where the checkpoint holds a whole one, and leave no file twice.

        A killed run may have saved a file after its last.ckpt: what is saved again replaces it.
        """
        fit: Any = trainer.fit_loop
        epochs, loop = fit.epoch_progress.current, fit.epoch_loop
        if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
            fit.reset_restart_stage()  # earlier versions saved before the end of the epoch
        elif epochs.ready == epochs.completed:
            loop.restarting = False
        if os.path.basename(trainer.ckpt_path or "") == "last.ckpt":
            for callback in trainer.checkpoint_callbacks:
                vars(callback)["_enable_version_counter"] = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the counters of the point between steps, not those that ModelCheckpoint reads."""
        if self._loops is not None:
            checkpoint["loops"]["fit_loop"] = self._loops

    def _put_off(self, callback: Any, hook: Callable[..., None], trainer: Any, *rest: Any) -> None:
        if not trainer.sanity_checking:
            self._due.setdefault(callback, {})[hook.__name__] = partial(hook, trainer, *rest)
            self._epoch = trainer.current_epoch

    def _advance(self, trainer: L.Trainer, advance: Callable[..., None], fetcher: Any) -> None:
        """Save, then train on the next batch."""
        loop = trainer.fit_loop.epoch_loop
        loop.restarting = False  # no batch of the checkpoint is half done
        if loop._batches_that_stepped < trainer.global_step:
            for callback in trainer.checkpoint_callbacks:
                callback.on_train_batch_end(trainer, trainer.lightning_module, None, None, 0)
            return  # saved before the step's validation, to which Lightning comes next
        self._save(trainer, self._then)
        advance(fetcher)

    def _end_epoch(self, trainer: L.Trainer, on_advance_end: Callable[[], None]) -> None:
        """Note the state of an epoch that ends in its middle, for a longer run to go on with."""
        loop = trainer.fit_loop.epoch_loop
        done = loop._is_training_done or trainer.should_stop
        if done and not loop._num_ready_batches_reached():
            self._loops = trainer.fit_loop.state_dict()
            modules = trainer.lightning_module.modules()
            self._means = [(m, m.metric_state) for m in modules if isinstance(m, Metric)]
        on_advance_end()

    def _end(self, trainer: L.Trainer, on_run_end: Callable[[], None]) -> None:
        """Save before averaged weights take the place of the others."""
        for metric, state in self._means:
            vars(metric).update(state)
        self._save(trainer, _save_last)
        on_run_end()

    def _save(self, trainer: L.Trainer, then: Callable[[L.Trainer], None]) -> None:
        fit: Any = trainer.fit_loop
        if not self._due or fit._should_accumulate():
            return
        self._loops = self._loops or fit.state_dict()
        # ModelCheckpoint counts and names the epoch that it was called in
        epochs = fit.epoch_progress.current
        epochs.completed, completed = self._epoch, epochs.completed
        for callback in reversed(trainer.checkpoint_callbacks):  # last.ckpt is mostly the first's
            for hook in self._due.pop(callback, {}).values():
                hook()
        then(trainer)
        epochs.completed, self._loops = completed, None


def _save_last(trainer: L.Trainer) -> None:
    if last_keeper(trainer) is not None:
        save_last(trainer)
