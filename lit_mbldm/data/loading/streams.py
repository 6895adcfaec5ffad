"""Batches of shards as iterable datasets: a sequential one, and a shuffled one for training.

N samples in all, B samples a batch. The samples of all shards in a row are shared out among ranks
and workers, so that there may be fewer shards than workers.
"""

import random
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from lit_mbldm.data.loading.loader import check_batches
from lit_mbldm.data.shards.decoders import Decoder
from lit_mbldm.data.shards.locate import Shard, ShardSet
from lit_mbldm.data.shards.reading import Sample, Span, read_span, spans
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError

Batch = dict[str, Any]
Array = NDArray[np.uint8]
SHUFFLE_BUFFER = 1000


class ShardStream(IterableDataset[Batch | InputError]):
    """Every sample once, in order; the last batch may be smaller.

    Yields `{decoder.key: uint8 (B, …), "index": int64 (B,), "skipped": int}`, the samples' numbers
    in the set and how many were lost since this worker's last batch, or the InputError that ends
    it, so that a worker process can hand it over.

    Args:
        shards: what is read.
        decoder: of its samples.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes, each with its own share of the samples.
    """

    def __init__(
        self,
        shards: ShardSet,
        decoder: Decoder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.shards = shards
        self.decoder = decoder
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._skipped = 0
        self._repeating = False  # what is lost again counts once

    def __len__(self) -> int:
        """Batches of this rank."""
        start, stop = self._rank_share()
        return -(-(stop - start) // self.batch_size)

    def __iter__(self) -> Iterator[Batch | InputError]:
        told, self._repeating = self._skipped, False
        try:
            samples = self._samples(*self._worker_batches())
            while batch := list(islice(samples, self.batch_size)):
                index = torch.tensor([number for number, _ in batch])
                skipped, told = self._skipped - told, self._skipped
                arrays = self._stack([array for _, array in batch])
                yield {self.decoder.key: arrays, "index": index, "skipped": skipped}
        except InputError as error:
            yield error

    def _rank_share(self) -> tuple[int, int]:
        N = self.shards.count
        return N * self.rank // self.world_size, N * (self.rank + 1) // self.world_size

    def _worker_batches(self) -> tuple[int, int]:
        """The first batch of this worker and the one after its last, consecutive in the rank."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        each, rest = divmod(len(self), workers)
        first = worker * each + min(worker, rest)
        return first, first + each + (worker < rest)

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        start, stop = self._rank_share()
        begin = start + first * self.batch_size
        end = min(start + last * self.batch_size, stop)
        if begin < end:
            for sample in self._read(spans(list(self.shards.shards), begin, end)):
                yield from self._decode(sample, None)

    def _read(self, parts: list[Span]) -> Iterator[Sample]:
        for part in parts:
            yield from read_span(part, self._skip)

    def _decode(self, sample: Sample, rng: random.Random | None) -> Iterator[tuple[int, Array]]:
        try:
            yield sample.index, self.decoder(sample.data, rng)
        except ImageError as error:
            self._skip(sample.name, error)

    def _skip(self, name: str, error: Exception, count: int = 1) -> None:
        if self._repeating:
            return
        warned, self._skipped = self._skipped, self._skipped + count
        if warned < 5 or warned // 100 < self._skipped // 100:
            warnings.warn(
                f"Skipped {name}: {error} ({self._skipped} skipped by process {self.rank}).",
                stacklevel=2,
            )

    def _stack(self, arrays: list[Array]) -> Tensor:
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes[:2])
            raise InputError(
                f"Expected images of one size in {self.shards.name}, got {sizes}. Write the shards"
                " with `lit-mbldm shards --size`, or set image_size."
            )
        return torch.from_numpy(np.stack(arrays))


class ShuffledStream(ShardStream):
    """Each sample at most once an epoch, shuffled and augmented; only full batches.

    The order depends on (seed, epoch) and the numbers of ranks and workers alone; `epoch` is set
    from outside. Every rank has the same number of batches: a worker that loses samples to
    corruption begins its share again. What does not fill a batch is left out, other samples each
    epoch.

    Args:
        shards: what is read.
        decoder: of its samples.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of order and augmentation.
        identity: of the shards' contents.

    Raises:
        InputError: too few samples for one batch a process.
    """

    def __init__(
        self,
        shards: ShardSet,
        decoder: Decoder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        identity: str = "",
    ) -> None:
        super().__init__(shards, decoder, batch_size, rank, world_size)
        self.seed = seed
        self.identity = identity
        check_batches(len(self), shards.name, batch_size, world_size, shards.count)

    def __len__(self) -> int:
        """Batches of each rank."""
        return self.shards.count // self.world_size // self.batch_size

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        return {
            "data": [type(self).__name__, self.identity, self.shards.count],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "number of processes": self.world_size,
            "num_workers": max(num_workers, 1),
        }

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        count = (last - first) * self.batch_size
        parts = self._share(first, count)
        return islice(self._repeat(parts, first), count)

    def _share(self, first: int, count: int) -> list[Span]:
        """`count` samples from this rank's batch `first` on, in shuffled shards."""
        N = self.shards.count
        rng = random.Random(f"{self.seed}/{self.epoch}")
        shards: list[Shard] = rng.sample(self.shards.shards, len(self.shards.shards))
        turn = rng.randrange(N)
        start = turn + self.rank * (N // self.world_size) + first * self.batch_size
        return spans(shards, start % N, start % N + count)

    def _repeat(self, parts: list[Span], first: int) -> Iterator[tuple[int, Array]]:
        rng = random.Random(f"{self.seed}/{self.epoch}/{self.rank}/{first}")
        while True:
            shuffle = webdataset.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=rng)
            good = 0
            for sample in shuffle(self._read(parts)):
                key = random.Random(f"{self.seed}/{self.epoch}/{sample.index}")
                for decoded in self._decode(sample, key):
                    good += 1
                    yield decoded
            if not good:
                names = ", ".join(part.name for part in parts[:3])
                raise InputError(
                    f"No sample in this process's share of {self.shards.name} ({names}) can be"
                    " read; the warnings above name the reasons. Write the shards again."
                )
            self._repeating = True
