"""Leaving on a signal: save, exit with a code that means "again"."""

import os
import signal
import time
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from lit_mbldm.training.resume.last_checkpoint import last_keeper, save_last

EXIT_CODE = 75  # EX_TEMPFAIL
_NAMES = ("SIGUSR1", "SIGTERM", "SIGINT")
SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # not on every system
_PATIENCE = 1.0  # seconds; `timeout` and torchrun send a signal twice


class Preemption(L.Callback):
    """On SIGUSR1, SIGTERM or Ctrl-C to any process, saves last.ckpt after the step, exits with 75.

    A second Ctrl-C leaves at once. Validation that has not begun is left to the resumed run. Before
    training, such as while the data are encoded, and in other verbs than fit, a signal ends the
    process at once, with the same code.

    Takes the place of Lightning's handlers: those communicate inside the handler, and on SLURM
    save in the middle of a step; outside of training they swallow SIGTERM. Without a last.ckpt to
    write, signals keep their meaning.
    """

    def __init__(self) -> None:
        """Leave at once on a signal, until training begins."""
        self._trainer: L.Trainer | None = None
        self._parent = os.getppid()
        self._received: signal.Signals | None = None
        self._received_at = 0.0
        self._former = {number: signal.signal(number, self._leave) for number in SIGNALS}

    def watch(self, trainer: L.Trainer) -> None:
        """End the processes too that this trainer starts."""
        self._trainer = trainer
        connector = trainer._signal_connector
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def give_back(self) -> None:
        """Give the signals back the meaning that they had."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Give the signals back: nothing is left to save."""
        self.give_back()

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Note signals from now on, before any process is forked to read data."""
        if last_keeper(trainer) is None:
            self.give_back()
        for number in self._former:
            signal.signal(number, self._note)

    def between_steps(self, trainer: L.Trainer) -> None:
        """Save and leave if any process got a signal."""
        received = self._received is not None
        if not self._former or not trainer.strategy.reduce_boolean_decision(received, all=False):
            return
        trainer.training = True  # ModelCheckpoint saves in training alone
        saved = save_last(trainer)
        trainer.strategy.barrier()
        self._ignore()
        name = self._received.name if self._received else "Another process's signal"
        _write(f"{name}: step {trainer.global_step} is in {saved}. Continue with --ckpt_path last.")
        raise SystemExit(_exit_code())

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave before validation, but at the end of an epoch, whose means are not logged yet."""
        loop = trainer.fit_loop.epoch_loop
        in_step = loop._should_accumulate() or loop._is_training_done
        if not trainer.sanity_checking and not in_step:
            self.between_steps(trainer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        waited = time.monotonic() - self._received_at
        if number == self._received == signal.SIGINT and waited > _PATIENCE:
            self._leave(number, frame)
        if self._received is None:
            self._received, self._received_at = signal.Signals(number), time.monotonic()
            if number == signal.SIGINT:
                _write("SIGINT: saving after this step. Press Ctrl-C again to leave at once.")

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """End now: what is finished stays, and threads at work hold nothing up."""
        self._ignore()
        if _started_by_lightning():
            if os.getppid() == self._parent:
                os.kill(self._parent, number)
        elif self._trainer is not None:
            for process in getattr(self._trainer.strategy.launcher, "procs", []):
                process.kill()
        how = "at once. Give the same command again to go on."
        if self._received:
            how = "without saving. Continue from the last checkpoint with --ckpt_path last."
        _write(f"{signal.Signals(number).name}: left {how}")
        os._exit(_exit_code())

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
def _write(text: str) -> None:
    os.write(1, f"\n{text}\n".encode())  # print may be what the signal interrupted
