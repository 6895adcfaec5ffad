"""Batches of samples with random access."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from lit_mbldm.data.loading.loader import check_batches, this_worker


class IndexedStream(IterableDataset[dict[str, Any]]):
    """Full batches of an epoch's samples, this rank's share; workers take turns.

    Each step takes the next samples of one order, whatever the number of processes.

    Args:
        name: of the samples, for messages.
        samples: number of them.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of the order, with the epoch, which is set from outside.
        fingerprint: of the samples' contents, if they have one.

    Raises:
        InputError: too few samples for one batch a process.
    """

    def __init__(
        self,
        name: str,
        samples: int,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        fingerprint: str | None = None,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.fingerprint = fingerprint
        self.epoch = 0
        check_batches(len(self), name, batch_size, world_size, samples)

    @property
    def count(self) -> int:
        """Samples an epoch of each rank."""
        return len(self) * self.batch_size

    def __len__(self) -> int:
        """Batches of each rank."""
        return self.samples // (self.batch_size * self.world_size)

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        told = [] if self.fingerprint is None else [self.fingerprint]
        return {"data": [type(self).__name__, *told, self.samples], "seed": self.seed}

    def batch(self, numbers: range) -> dict[str, Any]:
        """The batch of these places in the order of the epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = this_worker()
        for number in range(worker, len(self), workers):
            first = (number * self.world_size + self.rank) * self.batch_size
            yield self.batch(range(first, first + self.batch_size))
