"""Loaders of whole batches: by epoch, and resumable in the middle of one."""

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, get_worker_info
from tqdm import tqdm

from lit_mbldm.data.shards.skips import SHOWN, SkipLog
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent


class EpochDataset(Protocol):
    """An iterable dataset of whole batches that depends on an epoch set from outside.

    Attributes:
        epoch: of the next pass.
    """

    epoch: int

    @property
    def count(self) -> int:
        """Samples a pass."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def __iter__(self) -> Iterator[dict[str, Any] | InputError]:
        """Batches, or the error that ends them.

        "skipped" in a batch tells the name, reason and count of what could not be read on the way.
        """


class OrderedDataset(EpochDataset, Protocol):
    """A dataset that tells what its order depends on.

    Attributes:
        batch_size: samples a batch of this process.
        world_size: number of processes.
    """

    batch_size: int
    world_size: int

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order of the samples over all processes depends on, besides the epoch.

        By names for messages. Without batch_size and world_size in it, each step takes the next
        batch_size × world_size samples of one order.
        """


def this_worker() -> tuple[int, int]:
    """Number of this process among a loader's workers, and how many there are."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def check_batches(batches: int, name: str, batch_size: int, world_size: int, samples: int) -> None:
    """Raise InputError where an epoch has no batch for every process."""
    if batches == 0:
        raise InputError(
            f"Expected at least {batch_size * world_size} samples in {name} (batch_size"
            f" {batch_size}, {world_size} processes), got {samples}. Lower batch_size."
        )


class EpochLoader:
    """Iterates over a dataset of batches.

    No DataLoader itself, since the dataset does the batching and the sharing out among processes
    and Lightning need not.

    Args:
        dataset: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: largest tolerated fraction of a pass's samples that cannot be read.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        epoch: Callable[[], int],
        num_workers: int = 0,
        max_skipped: float = 1.0,
    ) -> None:
        self.dataset = dataset
        self.epoch = epoch
        self.num_workers = num_workers
        self.max_skipped = max_skipped

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.dataset.epoch = self.epoch()
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
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
        total = self.dataset.count
        kept = "What was trained and written so far is kept."
        skips.check(max(total - skips.count, 0), total, self.max_skipped, kept)


class ResumableLoader(EpochLoader):
    """An EpochLoader with Lightning's protocol of stateful loaders.

    Args:
        dataset: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: largest tolerated fraction of a pass's samples that cannot be read.
        move: told how many batches of the epoch count as done, where a resumed run has another
            number of processes, workers or samples a batch than the one before.
    """

    dataset: OrderedDataset

    def __init__(
        self,
        dataset: OrderedDataset,
        epoch: Callable[[], int],
        num_workers: int = 0,
        max_skipped: float = 1.0,
        move: Callable[[int], None] = lambda batches: None,
    ) -> None:
        super().__init__(dataset, epoch, num_workers, max_skipped)
        self._move = move
        self._position = {"epoch": -1, "batch": 0}
        self._resume: dict[str, int] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, start = self.epoch(), 0
        if self._resume is not None and self._resume["epoch"] == epoch:
            start = self._resume["batch"] % max(len(self), 1)
        self._resume = None
        batches = super().__iter__()
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
            "order": self.dataset.order(self.num_workers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after those batches, where the next pass is the same epoch.

        Where the number of processes, workers or samples a batch changed, continue at the same
        sample if the order allows, else at the start of the epoch.
        """
        self._resume = {"epoch": state["epoch"], "batch": state["batch"]}
        step, order = self._samples_a_step(), self.dataset.order(self.num_workers)
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
        return self.dataset.batch_size * self.dataset.world_size
