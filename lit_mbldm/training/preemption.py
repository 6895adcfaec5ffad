"""Leaving a cluster that wants its machines back: save, exit with a code that means "again"."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only

from lit_mbldm.training.last_checkpoint import last_keeper, save_last

EXIT_CODE = getattr(os, "EX_TEMPFAIL", 75)
# those that the system has
SIGNALS = [getattr(signal, name) for name in ("SIGUSR1", "SIGTERM") if hasattr(signal, name)]


class Preemption(L.Callback):
    """On SIGUSR1 or SIGTERM to any process, saves last.ckpt after the step and exits with 75.

    Several processes look for signals also where validation begins, a single one after each batch
    of it. Validation then begins anew in the resumed run. Before training, such as
    while the data are encoded, a signal ends the process at once, with the same code.

    Takes the place of Lightning's handlers: those communicate inside the handler, and on SLURM
    save in the middle of a step. Without a last.ckpt to write, signals keep their meaning.

    Attributes:
        trainer: set as soon as there is one, to end the processes that it starts.
    """

    def __init__(self) -> None:
        self.trainer: L.Trainer | None = None
        self._parent = os.getppid()
        self._received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}

    def take_signals(self) -> None:
        """Leave at once on a signal, until training begins; to be called before all else."""
        if threading.current_thread() == threading.main_thread():
            self._former = {number: signal.signal(number, self._leave) for number in SIGNALS}

    def give_back(self) -> None:
        """Give the signals back the meaning that they had."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Note signals from now on, before any process is forked to read data."""
        if last_keeper(trainer) is None:
            self.give_back()
        if not self._former:
            return
        for number in self._former:
            signal.signal(number, self._note)
        connector = trainer._signal_connector
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def between_steps(self, trainer: L.Trainer) -> None:
        """Save and leave if any process got a signal."""
        if self._former and self._agreed(trainer):
            raise self._exit(trainer, save_last(trainer))

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the step before and leave, if any process got a signal.

        Not at the end of an epoch, whose figures are not logged yet. Nothing is saved before
        training.
        """
        if self._to_leave(trainer):
            raise self._exit_before_validation(trainer)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *numbers: int
    ) -> None:
        """The same; not with several processes, of which one may have lost batches."""
        if trainer.world_size == 1 and self._to_leave(trainer):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)  # the weights in training
            raise self._exit_before_validation(trainer)

    def _to_leave(self, trainer: L.Trainer) -> bool:
        loop = trainer.fit_loop.epoch_loop
        in_step = loop._should_accumulate() or loop._is_training_done
        possible = trainer.sanity_checking or not in_step
        return bool(self._former) and possible and self._agreed(trainer)

    def _exit_before_validation(self, trainer: L.Trainer) -> SystemExit:
        if trainer.sanity_checking:
            return self._exit(trainer, None)
        trainer.training = True
        return self._exit(trainer, save_last(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Give the signals back: nothing is left to save."""
        self.give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Give the signals back, unless leaving because of one: another changes nothing."""
        self.give_back()

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """End now: what is finished of the data stays, and threads at work hold nothing up."""
        self._ignore()
        if _started_by_lightning():
            if os.getppid() == self._parent:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._parent, number)
        elif self.trainer is not None:
            for process in getattr(self.trainer.strategy.launcher, "procs", []):
                process.kill()
        name = signal.Signals(number).name
        os.write(1, f"\n{name}: left before training.\n".encode())
        os._exit(_exit_code())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)

    def _agreed(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _exit(self, trainer: L.Trainer, saved: str | None) -> SystemExit:
        trainer.strategy.barrier()
        self._ignore()
        _tell(self._received, trainer.global_step, saved)
        return SystemExit(_exit_code())

    def _ignore(self) -> None:
        for number in self._former:
            signal.signal(number, signal.SIG_IGN)  # Python's own end would undo any other handler
        self._former = {}


def _started_by_lightning() -> bool:
    return os.environ.get("LOCAL_RANK", "0") != "0" and not TorchElasticEnvironment.detect()


def _exit_code() -> int:
    # Lightning kills a process whose children, which it started itself, end with another code
    return 0 if _started_by_lightning() else EXIT_CODE


@rank_zero_only
def _tell(received: signal.Signals | None, step: int, saved: str | None) -> None:
    name = received.name if received else "Another process's signal"
    what = f"step {step} is in {saved}" if saved else "no step since the start, nothing to save"
    print(f"\n{name}: {what}. Continue with --ckpt_path last.", flush=True)
