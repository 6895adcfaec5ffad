"""What a step still has to do when its checkpoint is saved, done by the run that resumes."""

from typing import Any

import lightning as L
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import Metric

from lit_mbldm.errors import InputError

_KEY = "unfinished_step"


class FinishStep(L.Callback):
    """Logs and validates what the saved step would have, had the run gone on.

    A ModelCheckpoint saves at the end of a step (or of validation, or of an epoch), but Lightning
    logs the step's figures, validates and logs the epoch's figures after that, and starts with the
    next step when it resumes. What is done again for nothing comes out the same.
    """

    def __init__(self) -> None:
        self._unfinished: dict[str, Any] = {}
        self._resumed = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the figures that are not logged yet, and whether validation is due."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        loop = trainer.fit_loop.epoch_loop
        batches: Any = loop.batch_progress.current
        epochs: Any = trainer.fit_loop.epoch_progress.current
        in_step = batches.completed < batches.processed
        in_epoch_end = epochs.completed < epochs.processed
        metrics: dict[str, Any] = {}
        stepped = in_step and not loop._should_accumulate()
        if stepped and trainer._logger_connector.should_update_logs:
            metrics |= loop._results.metrics(on_step=True)["log"]
        if loop._is_training_done:
            metrics |= loop._results.metrics(on_step=False)["log"]
        fetcher = trainer.fit_loop._data_fetcher
        checkpoint[_KEY] = {
            "metrics": convert_tensors_to_scalars(metrics),
            # Lightning counts a step after it has validated, and logs under the number before
            "step": loop._batches_that_stepped - in_epoch_end,
            "epoch": trainer.current_epoch,
            "validate": in_step and fetcher is not None and loop._should_check_val_fx(fetcher),
        }
        if in_epoch_end:
            _to_step_end(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Take over what is left to do."""
        self._unfinished = checkpoint.get(_KEY, {})
        self._resumed = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the figures.

        Raises:
            InputError: the processes do not continue from the same checkpoint.
        """
        first = trainer.strategy.broadcast(trainer.ckpt_path)
        if first != trainer.ckpt_path:
            raise InputError(
                f"Process {trainer.global_rank} continues from {trainer.ckpt_path}, the first one"
                f" from {first}. Let all nodes see the same folder of runs."
            )
        if self._unfinished.get("metrics"):
            metrics = {"epoch": self._unfinished["epoch"], **self._unfinished["metrics"]}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=self._unfinished["step"])
                logger.save()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate if that was due, and begin a new epoch if the saved one was complete."""
        if self._unfinished.get("validate"):
            self._validate(trainer)
        self._unfinished = {}
        fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
            fit.reset_restart_stage()  # Lightning would take the new epoch for the saved one

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate if that was due after the last step of all, where training does not start."""
        if self._unfinished.get("validate"):
            self._validate(trainer)
        self._unfinished = {}

    def _validate(self, trainer: L.Trainer) -> None:
        """Validate as Lightning's training loop does at the end of a step."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        loop = trainer.fit_loop.epoch_loop.val_loop
        resumed, epochs.completed = epochs.completed, self._unfinished["epoch"]
        trainer.validating = True
        loop.restarting = False  # from its first batch
        loop.run()
        trainer.training = True
        epochs.completed = resumed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Empty the metrics that came full from the checkpoint of a complete epoch."""
        if self._resumed:
            for module in pl_module.modules():
                if isinstance(module, Metric):
                    module.reset()
        self._resumed = False


def _to_step_end(loops: dict[str, Any]) -> None:
    """Turn the loops' state at the end of an epoch into that at the end of its last step.

    Only from there Lightning resumes as it would have gone on, where `max_steps` is set.
    """
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    for scope in ("current", "total"):
        loops["epoch_progress"][scope]["processed"] -= 1
        loops["epoch_loop.batch_progress"][scope]["completed"] -= 1
