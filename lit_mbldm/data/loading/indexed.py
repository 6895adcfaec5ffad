"""Batches of samples with random access."""

from collections.abc import Iterator
from typing import Any

from lit_mbldm.data.loading.loader import BatchStream, this_worker


class IndexedStream(BatchStream):
    """Full batches of an epoch's samples; each step takes the next ones of one order.

    The order is the same for any number of processes; workers take turns.

    Args:
        name: of the samples, for messages.
        samples: number of them.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of the order, with the epoch.
        fingerprint: of the samples' contents, if they have one.
        full: leave out what does not fill a batch.

    Raises:
        InputError: too few samples for one batch a process.
    """

    def __init__(
        self,
        name: str,
        samples: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        fingerprint: str | None = None,
        full: bool = True,
    ) -> None:
        super().__init__(batch_size, rank, world_size, seed)
        self.samples = samples
        self.fingerprint = fingerprint
        self.full = full
        if full:
            self.check_batches(name, samples)

    def __len__(self) -> int:
        """Batches of each rank."""
        step = self.batch_size * self.world_size
        return self.samples // step if self.full else -(-self.samples // step)

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        told = [] if self.fingerprint is None else [self.fingerprint]
        return {"data": [type(self).__name__, *told, self.samples], "seed": self.seed}

    def batch(self, places: range) -> dict[str, Any]:
        """The batch of these places in the order of the epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = this_worker()
        for number in range(worker, len(self), workers):
            first = (number * self.world_size + self.rank) * self.batch_size
            yield self.batch(range(first, min(first + self.batch_size, self.samples)))
