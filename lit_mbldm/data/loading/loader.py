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


@dataclass(frozen=True)
class Share:
    """Which batches of an epoch a process gets.

    Attributes:
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of the order, with the epoch.
        fingerprint: of the samples' contents, if they have one.
        full: for training: full batches, as many for each rank; else every sample once, of each
            rank those that follow each other.
        horizontal_flip: mirror half of the samples, where their mirror images are known.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    seed: int = 0
    fingerprint: str = ""
    full: bool = True
    horizontal_flip: bool = False

    @property
    def samples_a_step(self) -> int:
        """Samples of one batch of every rank."""
        return self.batch_size * self.world_size


class BatchStream(IterableDataset[Any]):
    """Whole batches of an epoch, this rank's share of `samples` in all: tensors by name.

    Under "skipped" a batch tells name, reason and count of what could not be read on the way. An
    InputError in place of a batch ends it, so that a worker process can hand it over. `epoch` is
    set from outside.

    Raises:
        InputError: too few samples for one full batch a process; names them by `name`.
    """

    def __init__(self, name: str, samples: int, share: Share) -> None:
        self.name = name
        self.samples = samples
        self.share = share
        self.epoch = 0
        # where the samples are in order, this rank's are `start` to `stop` - 1
        self.start = samples * share.rank // share.world_size
        self.stop = samples * (share.rank + 1) // share.world_size
        if share.full and len(self) == 0:
            raise InputError(
                f"Expected at least {share.samples_a_step} samples in {name} (batch_size"
                f" {share.batch_size}, {share.world_size} processes), got {samples}. Lower"
                " batch_size."
            )

    def __len__(self) -> int:
        """Batches an epoch of this rank."""
        if self.share.full:
            return self.samples // self.share.samples_a_step
        return -(-(self.stop - self.start) // self.share.batch_size)

    @property
    def count(self) -> int:
        """Samples an epoch of this rank."""
        share = self.share
        return len(self) * share.batch_size if share.full else self.stop - self.start

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order of the samples over all processes depends on, by names for messages.

        Without batch_size in it, each step takes the next `samples_a_step` samples of one order.
        """
        contents = [self.share.fingerprint] if self.share.fingerprint else []
        data = [type(self).__name__, *contents, self.samples]
        return {"data": data, "seed": self.share.seed}


class IndexedStream(BatchStream):
    """Batches of samples with random access, in one order for any number of processes.

    Each step takes the next samples of the order; workers take turns.
    """

    def batch(self, places: range) -> dict[str, Any]:
        """The batch of these places in the order of the epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = this_worker()
        share, B = self.share, self.share.batch_size
        for number in range(worker, len(self), workers):
            if share.full:
                first = number * share.samples_a_step + share.rank * B
                yield self.batch(range(first, first + B))
            else:
                first = self.start + number * B
                yield self.batch(range(first, min(first + B, self.stop)))


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
        move: told how many batches of the epoch count as done, where a resumed run shares it out
            in another way.
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
            "samples_a_step": self.stream.share.samples_a_step,
            "order": self.stream.order(self.num_workers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after those batches, where the next pass is the same epoch.

        Where the number of processes, workers or samples a batch changed, continue at the same
        sample if the order allows, else at the start of the epoch.
        """
        self._resume = self._position = {"epoch": state["epoch"], "batch": state["batch"]}
        before, order = state["order"], self.stream.order(self.num_workers)
        step, done = self.stream.share.samples_a_step, state["batch"] * state["samples_a_step"]
        if state["epoch"] < self.epoch() or (before, state["samples_a_step"]) == (order, step):
            return
        if state["batch"] >= state["batches"]:
            batch = len(self)
        elif before == order:
            batch = min(done // step, len(self))
            rank_zero_info(f"The data continues at sample {batch * step} of the epoch.")
        else:
            batch = 0
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
        for name, reason, count in skipped:
            skips.add(name, reason, count)
            if len(skips.entries) <= SHOWN:
                warnings.warn(f"Skipped {name}: {reason}", stacklevel=3)
        kept = "What was trained and written so far is kept."
        skips.check(max(total - skips.count, 0), total, self.max_skipped, kept)


@dataclass(frozen=True)
class ReferenceSet:
    """This process's share of the training set as scores see it: in order, without flips.

    Attributes:
        kind: key of a batch.
        fingerprint: of the whole set, of JSON's types.
        count: samples of all processes together.
        start: number of this process's first sample; the next are counted on from it.
        batches: `{kind: uint8 (B, …)}`.
    """

    kind: Literal["images", "codes"]
    fingerprint: Any
    count: int
    start: int
    batches: EpochLoader
