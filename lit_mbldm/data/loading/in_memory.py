"""All codes of a training set in memory.

N samples, V variants (the image, its mirror image), S code channels, h×w patches, B samples a
batch.
"""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lit_mbldm.data.loading.indexed import IndexedStream
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.members import CodeReader
from lit_mbldm.data.shards.reading import read_span, whole
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first


class StoredCodes:
    """The codes of a set of code shards.

    Args:
        shards: of codes, read at once.
        reader: of its samples; V is 2 where it flips and the mirror images' codes are stored.
        max_skipped: largest tolerated fraction of samples that cannot be read.
        copies: of the codes on this machine, one a process.

    Attributes:
        codes: (N, V, S, h, w) uint8.
        index: (N,) int64, the samples' numbers in the set.

    Raises:
        InputError: more than fits in this machine's memory, or too many samples that are
            unreadable or in shards that differ from their manifest.
    """

    def __init__(
        self, shards: ShardSet, reader: CodeReader, max_skipped: float, copies: int = 1
    ) -> None:
        self.name = shards.name
        index: list[int] = []
        found: NDArray[np.uint8] = np.empty((0, 0), np.uint8)
        skips = SkipLog()
        for number, codes in _read(shards, reader, skips):
            if not index:
                V = min(2 if reader.horizontal_flip else 1, len(codes))
                found = _empty((shards.count, V, *reader.shape), shards.name, copies)
            if len(codes) < found.shape[1]:
                skips.add(f"sample {number}", "the mirror image's codes are missing")
            else:
                found[len(index)] = codes[: found.shape[1]]
                index.append(number)
        skips.close(len(index), shards.name, max_skipped, "Nothing was changed.")
        self.codes = torch.from_numpy(found[: len(index)])
        self.index = torch.tensor(index)


class MemoryStream(IndexedStream):
    """Full batches of stored codes; each sample at most once an epoch, in random order.

    Yields `{"codes": uint8 (B, S, h, w), "index": int64 (B,)}`.

    Args:
        stored: the codes.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of order and mirroring.
        fingerprint: of the codes' contents.
    """

    def __init__(
        self,
        stored: StoredCodes,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        fingerprint: str = "",
    ) -> None:
        count = len(stored.index)
        super().__init__(stored.name, count, batch_size, rank, world_size, seed, fingerprint)
        self.stored = stored

    def __iter__(self) -> Iterator[dict[str, Any]]:
        N, V = self.stored.codes.shape[:2]
        rng = np.random.default_rng([self.seed, self.epoch])
        self._order = torch.from_numpy(rng.permutation(N))
        self._variants = torch.from_numpy(rng.integers(V, size=N))
        return super().__iter__()

    def batch(self, places: range) -> dict[str, Any]:
        """The batch of these places in the order of the epoch."""
        picked = self._order[places.start : places.stop]
        codes = self.stored.codes[picked, self._variants[picked]]
        return {"codes": codes, "index": self.stored.index[picked]}


def _read(
    shards: ShardSet, reader: CodeReader, skips: SkipLog
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with tqdm(total=shards.count, desc="codes", unit="image", disable=not is_first()) as progress:
        for shard in shards.shards:
            for sample in read_span(whole(shard), skips.add):
                progress.update()
                try:
                    yield sample.index, reader.variants(sample.data)
                except ImageError as error:
                    skips.add(sample.name, error)


def _empty(shape: tuple[int, ...], name: str, copies: int) -> NDArray[np.uint8]:
    needed = copies * math.prod(shape)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InputError(
            f"The codes of {name} take {needed / 1e9:.1f} GB in {copies} processes, this machine"
            f" has {available / 1e9:.1f} GB of memory. Set in_memory: false to stream them."
        )
    return np.empty(shape, np.uint8)
