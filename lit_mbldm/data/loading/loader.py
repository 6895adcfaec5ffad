"""Streams of whole batches, and the loader that reads them by epoch and resumes in one."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

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
        name: of the samples, for messages.
        samples: number of them, of all ranks together.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of the order, with `epoch`, which is set from outside.
        fingerprint: of the samples' contents, if they have one.
        full: for training: as many full batches on each rank; else every sample once, of each rank
            a run of them from `start` to `stop` - 1.

    Raises:
        InputError: too few samples for one full batch a process.
    """

    def __init__(
        self,
        name: str,
        samples: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        seed: int = 0,
        fingerprint: str = "",
        full: bool = True,
    ) -> None:
        self.name = name
        self.samples = samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.fingerprint = fingerprint
        self.full = full
        self.epoch = 0
        self.start, self.stop = (samples * r // world_size for r in (rank, rank + 1))
        if full and len(self) == 0:
            raise InputError(
                f"Expected at least {self.samples_a_step} samples in {name} (batch_size"
                f" {batch_size}, {world_size} processes), got {samples}. Lower batch_size."
            )

    @property
    def samples_a_step(self) -> int:
        """Samples of one batch of every rank."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches an epoch of this rank."""
        if self.full:
            return self.samples // self.samples_a_step
        return -(-(self.stop - self.start) // self.batch_size)

    @property
    def count(self) -> int:
        """Samples an epoch of this rank."""
        return len(self) * self.batch_size if self.full else self.stop - self.start

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order of the samples over all processes depends on, besides the epoch.

        By names for messages. Without batch_size in it, each step takes the next `samples_a_step`
        samples of one order.
        """
        contents = [self.fingerprint] if self.fingerprint else []
        return {"data": [type(self).__name__, *contents, self.samples], "seed": self.seed}


class IndexedStream(BatchStream):
    """Batches of samples with random access, in one order for any number of processes.

    Each step takes the next samples of the order; workers take turns.
    """

    def batch(self, places: range) -> dict[str, Any]:
        """The batch of these places in the order of the epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = this_worker()
        B = self.batch_size
        for number in range(worker, len(self), workers):
            first = number * self.samples_a_step + self.rank * B
            if not self.full:
                first = self.start + number * B
            yield self.batch(range(first, first + B if self.full else min(first + B, self.stop)))


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
        self._skips = SkipLog()  # of this pass

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
            "samples_a_step": self.stream.samples_a_step,
            "order": self.stream.order(self.num_workers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after those batches, where the next pass is the same epoch.

        Where the number of processes, workers or samples a batch changed, continue at the same
        sample if the order allows, else at the start of the epoch.
        """
        self._resume = {"epoch": state["epoch"], "batch": state["batch"]}
        step, order = self.stream.samples_a_step, self.stream.order(self.num_workers)
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

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        self.stream.epoch = epoch
        loader: DataLoader[Any] = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_parent,
        )
        self._skips.entries.clear()
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            if skipped := batch.pop("skipped", None):
                self._note(skipped)
            if batch:
                yield batch

    def _note(self, skipped: list[tuple[str, str, int]]) -> None:
        skips, total = self._skips, self.stream.count
        for entry in skipped:
            skips.add(*entry)
            if len(skips.entries) <= SHOWN:
                warnings.warn(f"Skipped {entry[0]}: {entry[1]}", stacklevel=3)
        kept = "What was trained and written so far is kept."
        skips.check(max(total - skips.count, 0), total, self.max_skipped, kept)


@dataclass(frozen=True)
class ReferenceSet:
    """This process's share of the training set as scores see it: in order, without flips.

    Attributes:
        kind: key of a batch.
        fingerprint: of the whole set, of JSON's types; sets of equal fingerprint are equal.
        count: samples of all processes together.
        start: number of this process's first sample; the next are counted on from it, in whatever
            order the workers hand them over.
        batches: `{kind: uint8 (B, …)}`.
    """

    kind: Literal["images", "codes"]
    fingerprint: Any
    count: int
    start: int
    batches: EpochLoader
