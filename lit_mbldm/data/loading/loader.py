"""EpochLoader: reads a stream of batches by epoch, and resumes in one."""

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lit_mbldm.data.loading.streams import BatchStream
from lit_mbldm.data.shards.skips import SHOWN, SkipLog
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent


class EpochLoader:
    """Iterates over a stream of batches, and resumes in an epoch by Lightning's protocol.

    No DataLoader itself, since the stream does the batching and the sharing out among processes.

    Args:
        stream: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: largest tolerated fraction of a pass's samples that cannot be read.
        move: told how many batches of the epoch count as done, where that changes on resuming.
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
        self._skips = SkipLog()  # of a pass

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
        skips, total = self._skips, self.stream.count
        kept = "What was trained and written so far is kept."
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            skipped = batch.pop("skipped", ())
            for name, reason, count in skipped:
                skips.add(name, reason, count)
                if len(skips.entries) <= SHOWN:
                    warnings.warn(f"Skipped {name}: {reason}", stacklevel=2)
            if skipped:
                skips.check(max(total - skips.count, 0), total, self.max_skipped, kept)
            if batch:
                yield batch
