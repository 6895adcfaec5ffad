"""Batches of shards as iterable datasets: a sequential one, and a shuffled one for training.

N samples in all, B samples a batch. The samples of all shards in a row are shared out among ranks
and workers, so that there may be fewer shards than workers.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray

from lit_mbldm.data.loading.loader import BatchStream, this_worker
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.members import SampleReader
from lit_mbldm.data.shards.reading import Sample, Span, read_span, spans
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError

Batch = dict[str, Any]
Array = NDArray[np.uint8]
SHUFFLE_BUFFER = 1000


class ShardStream(BatchStream):
    """Every sample once, in order; the last batch may be smaller.

    Yields `{reader.key: uint8 (B, …), "index": int64 (B,), "skipped": [(name, reason, count)]}`,
    the samples' numbers in the set and what was lost since this worker's last batch, or the
    InputError that ends it, so that a worker process can hand it over.

    Args:
        shards: what is read.
        reader: of its samples.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes, each with its own share of the samples.
        seed: of order and augmentation where there are any.
    """

    def __init__(
        self,
        shards: ShardSet,
        reader: SampleReader,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, rank, world_size, seed)
        self.shards = shards
        self.reader = reader
        self._skipped: list[tuple[str, str, int]] = []
        self._repeating = False  # what is lost again counts once

    @property
    def start(self) -> int:
        """Number of this rank's first sample."""
        return self.shards.count * self.rank // self.world_size

    @property
    def count(self) -> int:
        """Samples of this rank."""
        return self.shards.count * (self.rank + 1) // self.world_size - self.start

    def __len__(self) -> int:
        """Batches of this rank."""
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Batch | InputError]:
        worker, workers = this_worker()  # consecutive batches each
        each, rest = divmod(len(self), workers)
        first = worker * each + min(worker, rest)
        self._skipped, self._repeating = [], False
        try:
            samples = self._samples(first, first + each + (worker < rest))
            while batch := list(islice(samples, self.batch_size)):
                yield self._batch(batch) | self._told()
            if self._skipped:
                yield self._told()
        except InputError as error:
            yield error

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        begin = self.start + min(first * self.batch_size, self.count)
        end = self.start + min(last * self.batch_size, self.count)
        for sample in self._read(spans(self.shards.shards, begin, end)):
            yield from self._arrays(sample, None)

    def _read(self, parts: list[Span]) -> Iterator[Sample]:
        for part in parts:
            yield from read_span(part, self._skip)

    def _arrays(self, sample: Sample, rng: random.Random | None) -> Iterator[tuple[int, Array]]:
        try:
            yield sample.index, self.reader(sample.data, rng)
        except ImageError as error:
            self._skip(sample.name, error)

    def _skip(self, name: str, error: Exception, count: int = 1) -> None:
        if not self._repeating:
            self._skipped.append((name, str(error), count))

    def _told(self) -> Batch:
        skipped, self._skipped = self._skipped, []
        return {"skipped": skipped}

    def _batch(self, samples: list[tuple[int, Array]]) -> Batch:
        numbers, arrays = zip(*samples, strict=True)
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes[:2])
            raise InputError(
                f"Expected images of one size in {self.shards.name}, got {sizes}. Write the shards"
                " with `lit-mbldm shards --size`, or set image_size."
            )
        return {self.reader.key: torch.from_numpy(np.stack(arrays)), "index": torch.tensor(numbers)}


class ShuffledStream(ShardStream):
    """Each sample at most once an epoch, shuffled and augmented; only full batches.

    The order depends on (seed, epoch) and the numbers of ranks and workers alone; `epoch` is set
    from outside. Every rank has the same number of batches: a worker that loses samples to
    corruption begins its share again. What does not fill a batch is left out, other samples each
    epoch.

    Args:
        shards: what is read.
        reader: of its samples.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of order and augmentation.
        fingerprint: of the shards' contents.

    Raises:
        InputError: too few samples for one batch a process.
    """

    def __init__(
        self,
        shards: ShardSet,
        reader: SampleReader,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        fingerprint: str = "",
    ) -> None:
        super().__init__(shards, reader, batch_size, rank, world_size, seed)
        self.fingerprint = fingerprint
        self.check_batches(shards.name, shards.count)

    @property
    def count(self) -> int:
        """Samples an epoch of each rank."""
        return len(self) * self.batch_size

    def __len__(self) -> int:
        """Batches of each rank."""
        return self.shards.count // self.world_size // self.batch_size

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        return {
            "data": [type(self).__name__, self.fingerprint, self.shards.count],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "number of processes": self.world_size,
            "num_workers": max(num_workers, 1),
        }

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        """This rank's batches `first` to `last` - 1, of the shards in random order."""
        N, count = self.shards.count, (last - first) * self.batch_size
        rng = random.Random(f"{self.seed}/{self.epoch}")
        shards = rng.sample(self.shards.shards, len(self.shards.shards))
        turn = rng.randrange(N)
        start = (turn + self.rank * (N // self.world_size) + first * self.batch_size) % N
        return islice(self._repeat(spans(shards, start, start + count), first), count)

    def _repeat(self, parts: list[Span], first: int) -> Iterator[tuple[int, Array]]:
        rng = random.Random(f"{self.seed}/{self.epoch}/{self.rank}/{first}")
        while True:
            shuffle = webdataset.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=rng)
            good = 0
            for sample in shuffle(self._read(parts)):
                key = random.Random(f"{self.seed}/{self.epoch}/{sample.index}")
                for array in self._arrays(sample, key):
                    good += 1
                    yield array
            if not good:
                names = ", ".join(part.shard.name for part in parts[:3])
                raise InputError(
                    f"No sample in this process's share of {self.shards.name} ({names}) can be"
                    f" read: {'; '.join(f'{name}: {why}' for name, why, _ in self._skipped[:3])}."
                    " Write the shards again."
                )
            self._repeating = True
