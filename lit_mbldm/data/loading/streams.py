"""Batches of an epoch as iterable datasets: samples in any order, and those of shards.

N samples in all, B samples a batch. The samples of all shards in a row are shared out among ranks
and workers, so that there may be fewer shards than workers.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.reading import Array, Sample, Span, Variants, read_span, spans
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError

Batch = dict[str, Any]
SHUFFLE_BUFFER = 1000


@dataclass(frozen=True)
class Share:
    """Which batches of an epoch a process gets: number `rank` of `world_size`.

    Attributes:
        seed: of the order, with the epoch.
        fingerprint: of the samples' contents, if they have one.
        full: full batches, as many for each rank; else every sample once, each rank's in a row.
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
    set from outside. Raises InputError for too few samples, which it names by `name`.
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
        """What the order of the samples over all processes depends on, by names for messages."""
        contents = [self.share.fingerprint] if self.share.fingerprint else []
        data = [type(self).__name__, *contents, self.samples]
        return {"data": data, "seed": self.share.seed}


class IndexedStream(BatchStream):
    """Batches of samples with random access; each step takes the next of one order of all."""

    def batch(self, places: range) -> Batch:
        """The batch of these places in the order of the epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Batch]:
        worker, workers = _this_worker()
        share, B = self.share, self.share.batch_size
        for number in range(worker, len(self), workers):
            if share.full:
                first, stop = number * share.samples_a_step + share.rank * B, self.samples
            else:
                first, stop = self.start + number * B, self.stop
            yield self.batch(range(first, min(first + B, stop)))


class ShardStream(BatchStream):
    """Every sample once, in order; the last batch may be smaller.

    Yields `{"images" or "codes": uint8 (B, …), "index": int64 (B,), "skipped": [(name, reason,
    count)]}`, the samples' numbers in the set and what was lost since this worker's last batch, of
    labelled shards with `"label"`, int64 (B,).

    `variants` makes a sample's arrays of its bytes, the mirror image's last.
    """

    def __init__(self, shards: ShardSet, variants: Variants, share: Share) -> None:
        super().__init__(shards.name, shards.count, share)
        self.shards = shards.shards
        self.kind = shards.kind
        self.labelled = shards.classes is not None
        self.variants = variants
        self._skipped: list[tuple[str, str, int]] = []
        self._repeating = False  # what is lost again counts once

    def __iter__(self) -> Iterator[Batch | InputError]:
        worker, workers = _this_worker()  # consecutive batches each
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

    def _samples(self, first: int, last: int) -> Iterator[tuple[Sample, Array]]:
        """Samples of batches `first` to `last` - 1 of this rank, with their arrays."""
        begin, end = (min(self.start + b * self.share.batch_size, self.stop) for b in (first, last))
        return self._arrays(self._read(spans(self.shards, begin, end)))

    def _read(self, parts: list[Span]) -> Iterator[Sample]:
        return (sample for part in parts for sample in read_span(part, self._skip))

    def _arrays(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, Array]]:
        for sample in samples:
            rng = random.Random(f"{self.share.seed}/{self.epoch}/{sample.index}")
            flipped = self.share.horizontal_flip and rng.random() < 0.5
            try:
                yield sample, self.variants(sample.data)[-1 if flipped else 0]
            except ImageError as error:
                self._skip(sample.name, error)

    def _skip(self, name: str, error: Exception, count: int = 1) -> None:
        if not self._repeating:
            self._skipped.append((name, str(error), count))

    def _batch(self, found: list[tuple[Sample, Array]]) -> Batch:
        samples, arrays = zip(*found, strict=True)
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes[:2])
            raise InputError(
                f"Expected images of one size in {self.name}, got {sizes}. Write the shards with"
                " `lit-mbldm shards --size`, or set image_size."
            )
        index = torch.tensor([sample.index for sample in samples])
        batch = {self.kind: torch.from_numpy(np.stack(arrays)), "index": index}
        if self.labelled:
            batch["label"] = torch.tensor([sample.label for sample in samples])
        return batch


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

    def _samples(self, first: int, last: int) -> Iterator[tuple[Sample, Array]]:
        N, share = self.samples, self.share
        count = (last - first) * share.batch_size
        rng = random.Random(f"{share.seed}/{self.epoch}")
        shards = rng.sample(self.shards, len(self.shards))
        begin = rng.randrange(N) + share.rank * (N // share.world_size) + first * share.batch_size
        parts = spans(shards, begin % N, begin % N + count)
        return islice(self._repeat(parts, f"{share.seed}/{self.epoch}/{share.rank}/{first}"), count)

    def _repeat(self, parts: list[Span], seed: str) -> Iterator[tuple[Sample, Array]]:
        rng = random.Random(seed)
        while True:
            shuffle = webdataset.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=rng)
            good = False
            for array in self._arrays(shuffle(self._read(parts))):
                good = True
                yield array
            if not good:
                lost = "; ".join(f"{name}: {why}" for name, why, _ in self._skipped[:3])
                raise InputError(
                    f"No sample in this process's share of {self.name} can be read: {lost}. Write"
                    " the shards again."
                )
            self._repeating = True


def _this_worker() -> tuple[int, int]:
    """Number of this process among a loader's workers, and how many there are."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
