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

from lit_mbldm.data.images import ImageError
from lit_mbldm.data.loading.loader import BatchStream, Share, this_worker
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.reading import Array, Sample, Span, Variants, read_span, spans
from lit_mbldm.errors import InputError

Batch = dict[str, Any]
SHUFFLE_BUFFER = 1000


class ShardStream(BatchStream):
    """Every sample once, in order; the last batch may be smaller.

    Yields `{"images" or "codes": uint8 (B, …), "index": int64 (B,), "skipped": [(name, reason,
    count)]}`, the samples' numbers in the set and what was lost since this worker's last batch.

    `variants` makes a sample's arrays of its bytes, the mirror image's last.
    """

    def __init__(self, shards: ShardSet, variants: Variants, share: Share) -> None:
        super().__init__(shards.name, shards.count, share)
        self.shards = shards.shards
        self.kind = shards.kind
        self.variants = variants
        self._skipped: list[tuple[str, str, int]] = []
        self._repeating = False  # what is lost again counts once

    def __iter__(self) -> Iterator[Batch | InputError]:
        worker, workers = this_worker()  # consecutive batches each
        each, rest = divmod(len(self), workers)
        first = worker * each + min(worker, rest)
        self._skipped, self._repeating = [], False
        try:
            samples = self._samples(first, first + each + (worker < rest))
            while batch := list(islice(samples, self.share.batch_size)):
                skipped, self._skipped = self._skipped, []
                yield self._batch(batch) | {"skipped": skipped}
            if self._skipped:
                yield {"skipped": self._skipped}
        except InputError as error:
            yield error

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        """Numbers and arrays of the samples of batches `first` to `last` - 1 of this rank."""
        begin, end = (min(self.start + b * self.share.batch_size, self.stop) for b in (first, last))
        return self._arrays(self._read(spans(self.shards, begin, end)))

    def _read(self, parts: list[Span]) -> Iterator[Sample]:
        return (sample for part in parts for sample in read_span(part, self._skip))

    def _arrays(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Array]]:
        for sample in samples:
            rng = random.Random(f"{self.share.seed}/{self.epoch}/{sample.index}")
            flipped = self.share.horizontal_flip and rng.random() < 0.5
            try:
                yield sample.index, self.variants(sample.data)[-1 if flipped else 0]
            except ImageError as error:
                self._skip(sample.name, error)

    def _skip(self, name: str, error: Exception, count: int = 1) -> None:
        if not self._repeating:
            self._skipped.append((name, str(error), count))

    def _batch(self, samples: list[tuple[int, Array]]) -> Batch:
        numbers, arrays = zip(*samples, strict=True)
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes[:2])
            raise InputError(
                f"Expected images of one size in {self.name}, got {sizes}. Write the shards with"
                " `lit-mbldm shards --size`, or set image_size."
            )
        return {self.kind: torch.from_numpy(np.stack(arrays)), "index": torch.tensor(numbers)}


class ShuffledStream(ShardStream):
    """Each sample at most once an epoch, shuffled and half of them mirrored; only full batches.

    The order depends on (seed, epoch) and the numbers of ranks and workers alone. Every rank has
    the same number of batches: a worker that loses samples to corruption begins its share again.
    What does not fill a batch is left out, other samples each epoch.
    """

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        return {
            **super().order(num_workers),
            "batch_size": self.share.batch_size,
            "number of processes": self.share.world_size,
            "num_workers": max(num_workers, 1),
        }

    def _samples(self, first: int, last: int) -> Iterator[tuple[int, Array]]:
        N, count = self.samples, (last - first) * self.share.batch_size
        rng = random.Random(f"{self.share.seed}/{self.epoch}")
        shards = rng.sample(self.shards, len(self.shards))
        turn = rng.randrange(N)
        start = (
            turn + self.share.rank * (N // self.share.world_size) + first * self.share.batch_size
        ) % N
        return islice(self._repeat(spans(shards, start, start + count), first), count)

    def _repeat(self, parts: list[Span], first: int) -> Iterator[tuple[int, Array]]:
        rng = random.Random(f"{self.share.seed}/{self.epoch}/{self.share.rank}/{first}")
        while True:
            shuffle = webdataset.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=rng)
            good = False
            for array in self._arrays(shuffle(self._read(parts))):
                good = True
                yield array
            if not good:
                names = ", ".join(part.shard.name for part in parts[:3])
                raise InputError(
                    f"No sample in this process's share of {self.name} ({names}) can be read:"
                    f" {'; '.join(f'{name}: {why}' for name, why, _ in self._skipped[:3])}."
                    " Write the shards again."
                )
            self._repeating = True
