"""Leaving a cluster that wants its machines back: save, exit with a code that means "again"."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only

from lit_mbldm.training.last_checkpoint import last_keeper, save_last

EXIT_CODE = os.EX_TEMPFAIL  # 75
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Preemption(L.Callback):
    """On SIGUSR1 or SIGTERM to any process, saves last.ckpt after the step and exits with 75.

    During validation, that is after the current batch of it, which then begins anew in the resumed
    run. Takes the place of Lightning's handlers: those communicate inside the handler, and on SLURM
    save in the middle of a step. Without a last.ckpt to write, signals keep their meaning.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._before_validation: dict[str, Any] | None = None
        self._agreements_left = 0  # in this validation

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Take the signals, before any process is forked to read data."""
        if last_keeper(trainer) is None or threading.current_thread() != threading.main_thread():
            return
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._note)
        connector = trainer._signal_connector
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave if any process got a signal."""
        fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        self._before_validation = None
        if not self._former or loop._should_accumulate():
            return
        if self._agreed(trainer):
            raise self._exit(trainer, save_last(trainer))
        assert fit._data_fetcher is not None
        if loop._should_check_val_fx(fit._data_fetcher):
            self._before_validation = fit.state_dict()

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Learn how many batches every process has, since only then all can agree."""
        if self._former:
            counts = trainer.num_sanity_val_batches if trainer.sanity_checking else None
            count = torch.tensor(sum(counts or trainer.num_val_batches), dtype=torch.float32)
            count = trainer.strategy.reduce(count.to(pl_module.device), reduce_op="min")
            self._agreements_left = int(count)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save the end of the step before and leave, if any process got a signal.

        Nothing is saved where no step was done since the start.
        """
        self._agreements_left -= 1
        between_steps = trainer.sanity_checking or not trainer.fit_loop._should_accumulate()
        if not self._former or self._agreements_left < 0 or not between_steps:
            return
        if not self._agreed(trainer):
            return
        if self._before_validation is None:
            raise self._exit(trainer, None)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_end(trainer, pl_module)  # the weights in training
        trainer.fit_loop.load_state_dict(self._before_validation)
        trainer.training = True
        raise self._exit(trainer, save_last(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Give the signals back: nothing is left to save."""
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Give the signals back, unless leaving because of one: another changes nothing."""
        if not isinstance(exception, SystemExit):
            self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)

    def _agreed(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _exit(self, trainer: L.Trainer, saved: str | None) -> SystemExit:
        trainer.strategy.barrier()
        for number in self._former:
            signal.signal(number, signal.SIG_IGN)  # Python's own end would undo any other handler
        _tell(self._received, trainer.global_step, saved)
        environment = getattr(trainer.strategy, "cluster_environment", None)
        # Lightning kills a process whose children, which it started itself, end with another code
        started = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        return SystemExit(0 if started else EXIT_CODE)


@rank_zero_only
def _tell(received: signal.Signals | None, step: int, saved: str | None) -> None:
    name = received.name if received else "Another process's signal"
    what = f"step {step} is in {saved}" if saved else "no step since the start, nothing to save"
    print(f"\n{name}: {what}. Continue with --ckpt_path last.", flush=True)
