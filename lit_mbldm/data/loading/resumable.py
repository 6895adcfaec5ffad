"""A loader that resumes in the middle of an epoch, also with another number of processes."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from tqdm import tqdm

from lit_mbldm.data.loading.loader import EpochDataset, EpochLoader
from lit_mbldm.parallel.ranks import is_first


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


class ResumableLoader(EpochLoader):
    """An EpochLoader with Lightning's protocol of stateful loaders.

    Args:
        dataset: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: samples that may be unreadable in a pass; None for any number.
        move: told how many batches of the epoch count as done, where a resumed run has another
            number of processes, workers or samples a batch than the one before.
    """

    dataset: OrderedDataset

    def __init__(
        self,
        dataset: OrderedDataset,
        epoch: Callable[[], int],
        num_workers: int = 0,
        max_skipped: float | None = None,
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
        self._resume = self._position = {"epoch": state["epoch"], "batch": state["batch"]}
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
