"""A callback of the fits that tests start: sends signals, writes what was read and learnt."""

import atexit
import hashlib
import itertools
import json
import os
import signal
import subprocess
import time
from functools import partialmethod
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import distributed

from lit_mbldm.data.prepare.shard_folder import ShardFolder

if os.environ.get("PROBE_SLOW"):  # encoding, but for the first shard that this process takes
    write = ShardFolder.write
    turns = itertools.count()

    def write_slowly(folder: ShardFolder, name: str, *rest: Any) -> Any:
        if next(turns):
            time.sleep(600)
        return write(folder, name, *rest)

    ShardFolder.write = write_slowly  # type: ignore[method-assign]


@atexit.register
def write_what_is_left() -> None:
    if folder := os.environ.get("PROBE_RECORD"):
        left = distributed.is_initialized()
        Path(folder, f"left{os.environ['LOCAL_RANK']}.txt").write_text(str(left))


class Probe(L.Callback):
    """PROBE_SIGNAL is `name hook step rank target`, PROBE_RECORD a folder for what was seen.

    PROBE_KILL is the number of the hook, of all that are called, at which rank 0 is killed.
    """

    def __init__(self) -> None:
        name, self.hook, step, rank, self.target = os.environ.get(
            "PROBE_SIGNAL", "SIGKILL never 0 0 self"
        ).split()
        self.signal, self.step, self.rank = signal.Signals[name], int(step), int(rank)
        self.record = os.environ.get("PROBE_RECORD")
        self.left = int(os.environ.get("PROBE_KILL", "0"))

    def _fire(self, hook: str, trainer: L.Trainer, *rest: Any) -> None:
        self.left -= 1
        if self.left == 0 and trainer.global_rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        here = (hook, trainer.global_step, trainer.global_rank)
        if here != (self.hook, self.step, self.rank):
            return
        if self.target == "group":
            # from outside, since a process that reads data takes its parent's SIGTERM for orderly
            kill = ["kill", f"-{self.signal.value}", "--", f"-{os.getpgid(0)}"]
            subprocess.run(kill, start_new_session=True, check=True)
        else:
            os.kill(os.getppid() if self.target == "parent" else os.getpid(), self.signal)
        if self.target in ("burst", "twice"):
            time.sleep(1.2 if self.target == "twice" else 0)
            os.kill(os.getpid(), self.signal)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._fire("batch_start", trainer)
        if self.record is not None:
            path = Path(self.record, f"rank{trainer.global_rank}.txt")
            with path.open("a") as file:
                file.write(json.dumps([trainer.current_epoch, batch["index"].tolist()]) + "\n")

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.record is not None:
            weights = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
            digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
            Path(self.record, f"weights{trainer.global_rank}.txt").write_text(digest)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        if isinstance(exception, SystemExit) and trainer.global_rank > 0:
            time.sleep(1)  # the others leave before

    on_before_optimizer_step = partialmethod(_fire, "step")
    on_train_batch_end = partialmethod(_fire, "batch_end")
    on_validation_start = partialmethod(_fire, "validating")
    on_validation_batch_end = partialmethod(_fire, "validation")
    on_validation_end = partialmethod(_fire, "validated")
    on_train_epoch_end = partialmethod(_fire, "epoch_end")
    on_save_checkpoint = partialmethod(_fire, "save")
