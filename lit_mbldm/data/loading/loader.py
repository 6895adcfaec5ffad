"""Streams of whole batches, and the loader that reads them by epoch and resumes in one."""

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from lit_mbldm.data.shards.skips import SHOWN, SkipLog
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent


class BatchStream(IterableDataset[Any]):
    """Whole batches of an epoch, this rank's share: tensors by name.

    Under "skipped" a batch tells name, reason and count of what could not be read on the way. An
    InputError in place of a batch ends it, so that a worker process can hand it over.

    Args:
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of the order, with `epoch`, which is set from outside.
    """

    def __init__(self, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch of this rank."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """Samples an epoch of this rank."""
        return len(self) * self.batch_size

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order of the samples over all processes depends on, besides the epoch.

        By names for messages. Without batch_size and world_size in it, each step takes the next
        batch_size × world_size samples of one order.
        """
        raise NotImplementedError

    def check_batches(self, name: str, samples: int) -> None:
        """Raise InputError where so many samples of `name` give no batch for every process."""
        if len(self) == 0:
            raise InputError(
                f"Expected at least {self.batch_size * self.world_size} samples in {name}"
                f" (batch_size {self.batch_size}, {self.world_size} processes), got {samples}."
                " Lower batch_size."
            )


def this_worker() -> tuple[int, int]:
    """Number of this process among a loader's workers, and how many there are."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


class EpochLoader:
    """Iterates over a stream of batches, and resumes in an epoch by Lightning's protocol.

    No DataLoader itself, since the stream does the batching and the sharing out among processes
    and Lightning need not.

    Args:
        stream: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: largest tolerated fraction of a pass's samples that cannot be read.
        move: told how many batches of the epoch count as done, where a resumed run has another
            number of processes, workers or samples a batch than the one before.
    """

    def __init__(
        self,
        stream: BatchStream,
        epoch: Callable[[], int],
        num_workers: int = 0,
        max_skipped: float = 1.0,
        move: Callable[[int], None] = lambda batches: None,
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.num_workers = num_workers
        self.max_skipped = max_skipped
        self._move = move
        self._position = {"epoch": -1, "batch": 0}
        self._resume: dict[str, int] | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.stream)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, start = self.epoch(), 0
        if self._resume is not None and self._resume["epoch"] == epoch:
            start = self._resume["batch"] % max(len(self), 1)
        self._resume = None
        batches = self._batches(epoch)
        passed = islice(batches, start)
        for _ in tqdm(passed, "back to its place", start, disable=not start or not is_first()):
            pass
        for number, batch in enumerate(batches, start + 1):
            self._position = {"epoch": epoch, "batch": number}
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the number of batches handed out in it, and how they were made."""
        return {
            **self._position,
            "batches": len(self),
            "samples_a_step": self._samples_a_step(),
            "order": self.stream.order(self.num_workers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after those batches, where the next pass is the same epoch.

        Where the number of processes, workers or samples a batch changed, continue at the same
        sample if the order allows, else at the start of the epoch.
        """
        self._resume = self._position = {"epoch": state["epoch"], "batch": state["batch"]}
        step, order = self._samples_a_step(), self.stream.order(self.num_workers)
        whole_epoch = state["epoch"] < self.epoch()
        if whole_epoch or [state["order"], state["samples_a_step"]] == [order, step]:
            return
        done = state["batch"] * state["samples_a_step"]
        if state["batch"] >= state["batches"]:
            batch = len(self)
        elif state["order"] == order:
            batch = min(done // step, len(self))
            rank_zero_info(f"The data continues at sample {batch * step} of the epoch.")
        else:
            batch = 0
            before = state["order"]
            changed = [key for key in {**before, **order} if before.get(key) != order.get(key)]
            rank_zero_warn(
                f"The data starts epoch {state['epoch']} again, of which {done} samples were done:"
                f" {', '.join(changed)} changed."
            )
        self._resume["batch"] = batch
        self._move(batch)

    def _samples_a_step(self) -> int:
        return self.stream.batch_size * self.stream.world_size

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        self.stream.epoch = epoch
        loader: DataLoader[Any] = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_parent,
        )
        skips = SkipLog()
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            if skipped := batch.pop("skipped", None):
                self._note(skips, skipped)
            if batch:
                yield batch

    def _note(self, skips: SkipLog, skipped: list[tuple[str, str, int]]) -> None:
        for entry in skipped:
            skips.add(*entry)
            if len(skips.entries) <= SHOWN:
                warnings.warn(f"Skipped {entry[0]}: {entry[1]}", stacklevel=3)
        total = self.stream.count
        kept = "What was trained and written so far is kept."
        skips.check(max(total - skips.count, 0), total, self.max_skipped, kept)
