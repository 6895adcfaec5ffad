"""All codes of a training set in memory.

N samples, V variants (the image, its mirror image), S code channels, h×w patches, B samples a
batch.
"""

import math
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm import tqdm

from lit_mbldm.data.loading.loader import check_batches
from lit_mbldm.data.shards.decoders import CodeDecoder
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.reading import read_span, whole
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first


class StoredCodes:
    """The codes of a set of code shards.

    Args:
        shards: of codes, read at once.
        variants: V, 2 to keep the mirror image's codes too, where they are stored; else 1.
        max_skipped: largest tolerated fraction of samples that cannot be read.
        copies: of the codes on this machine, one a process.
        codebook_size: K, which the codes lie below.

    Attributes:
        codes: (N, V, S, h, w) uint8.
        index: (N,) int64, the samples' numbers in the set.

    Raises:
        InputError: more than fits in this machine's memory, or too many samples that are
            unreadable or in shards that differ from their manifest.
    """

    def __init__(
        self,
        shards: ShardSet,
        variants: int,
        max_skipped: float,
        copies: int = 1,
        codebook_size: int = 256,
    ) -> None:
        assert shards.tag is not None
        self.name = shards.name
        self.codes = torch.empty(0, dtype=torch.uint8)
        index: list[int] = []
        skips = SkipLog()
        decoder = CodeDecoder(shards.tag.shape, codebook_size=codebook_size)
        for number, codes in _read(shards, decoder, skips):
            if not index:
                self.codes = _empty(shards, min(variants, len(codes)), copies)
            V = self.codes.shape[1]
            if len(codes) < V:
                skips.add(f"sample {number}", "the mirror image's codes are missing")
                continue
            self.codes[len(index)] = torch.from_numpy(codes[:V])
            index.append(number)
        total = max(shards.count, len(index) + skips.count)
        skips.check(len(index), total, max_skipped, "Nothing was changed.")
        if skips.count:
            warnings.warn(
                f"Left out {skips.count} unreadable samples of {shards.name}:\n{skips.summary()}",
                stacklevel=2,
            )
        self.codes = self.codes[: len(index)]
        self.index = torch.tensor(index)


def _read(
    shards: ShardSet, decoder: CodeDecoder, skips: SkipLog
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with tqdm(total=shards.count, desc="codes", unit="image", disable=not is_first()) as progress:
        for shard in shards.shards:
            for sample in read_span(whole(shard), skips.add):
                progress.update()
                try:
                    yield sample.index, decoder.variants(sample.data)
                except ImageError as error:
                    skips.add(sample.name, error)


def _empty(shards: ShardSet, variants: int, copies: int) -> Tensor:
    assert shards.tag is not None
    shape = (shards.count, variants, *shards.tag.shape)
    needed = copies * math.prod(shape)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InputError(
            f"The codes of {shards.name} take {needed / 1e9:.1f} GB in {copies} processes, this"
            f" machine has {available / 1e9:.1f} GB of memory. Set in_memory: false to stream them."
        )
    return torch.empty(shape, dtype=torch.uint8)


class MemoryStream(IterableDataset[dict[str, Any]]):
    """Full batches of stored codes; each sample at most once an epoch, in random order.

    The order depends on (seed, epoch) alone: each step takes the next samples of it, whatever the
    number of processes. Yields `{"codes": uint8 (B, S, h, w), "index": int64 (B,)}`.

    Args:
        stored: the codes.
        batch_size: samples a batch.
        rank: of this process.
        world_size: number of processes.
        seed: of order and mirroring.
        identity: of the codes' contents.

    Raises:
        InputError: too few samples for one batch a process.
    """

    def __init__(
        self,
        stored: StoredCodes,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        identity: str = "",
    ) -> None:
        self.stored = stored
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.identity = identity
        self.epoch = 0
        check_batches(len(self), stored.name, batch_size, world_size, len(stored.index))

    def __len__(self) -> int:
        """Batches of each rank."""
        return len(self.stored.index) // (self.batch_size * self.world_size)

    def order(self, num_workers: int) -> dict[str, Any]:
        """What the order depends on, besides the epoch."""
        data = [type(self).__name__, self.identity, len(self.stored.index)]
        return {"data": data, "seed": self.seed}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        N, V = self.stored.codes.shape[:2]
        rng = np.random.default_rng([self.seed, self.epoch])
        order = torch.from_numpy(rng.permutation(N))
        variants = torch.from_numpy(rng.integers(V, size=N))
        rows = self.stored.codes.flatten(0, 1)  # (N·V, S, h, w)
        B = self.batch_size
        for first in range(self.rank * B, len(self) * self.world_size * B, self.world_size * B):
            picked = order[first : first + B]
            codes = rows[picked * V + variants[picked]]
            yield {"codes": codes, "index": self.stored.index[picked]}
