"""All codes of a training set in memory.

N samples, V variants (the image, its mirror image), S code channels, h×w patches, B a batch.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.data.loading.streams import Batch, IndexedStream, Share
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.reading import Array, Variants, read_span, whole
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError
from lit_mbldm.parallel.ranks import is_first


@dataclass(frozen=True)
class StoredCodes:
    """Codes (N, V, S, h, w) uint8, the samples' numbers in the set and labels, (N,) int64."""

    codes: Tensor
    index: Tensor
    label: Tensor | None = None


def load_codes(
    shards: ShardSet, variants: Variants, horizontal_flip: bool, max_skipped: float, copies: int = 1
) -> StoredCodes:
    """Read the codes of a set of code shards; V is 2 where flips are wanted and stored.

    Raises InputError where so many copies, one a process, do not fit in this machine's memory, or
    too many samples are unreadable or in shards that differ from their manifest.
    """
    index: list[int] = []
    labels: list[int | None] = []
    found: Array = np.empty((0, 0), np.uint8)
    skips = SkipLog()
    with tqdm(total=shards.count, desc="codes", unit="image", disable=not is_first()) as progress:
        for sample in (s for shard in shards.shards for s in read_span(whole(shard), skips.add)):
            progress.update()
            try:
                codes = np.asarray(variants(sample.data))[: 1 + horizontal_flip]
                if index and len(codes) < found.shape[1]:
                    raise ImageError("the mirror image's codes are missing")
            except ImageError as error:
                skips.add(sample.name, error)
                continue
            if not index:
                _check_memory(copies * shards.count * codes.size, copies, shards.name)
                found = np.empty((shards.count, *codes.shape), np.uint8)
            found[len(index)] = codes[: found.shape[1]]
            index.append(sample.index)
            labels.append(sample.label)
    skips.close(len(index), f"samples of {shards.name}", max_skipped, "Nothing was changed.")
    label = torch.tensor(labels) if shards.classes is not None else None
    return StoredCodes(torch.from_numpy(found[: len(index)]), torch.tensor(index), label)


class MemoryStream(IndexedStream):
    """Full batches, shuffled: `{"codes": uint8 (B, S, h, w), "index" and "label": int64 (B,)}`."""

    def __init__(self, stored: StoredCodes, name: str, share: Share) -> None:
        super().__init__(name, len(stored.index), share)
        self.stored = stored

    def __iter__(self) -> Iterator[Batch]:
        N, V = self.stored.codes.shape[:2]
        rng = np.random.default_rng([self.share.seed, self.epoch])
        self._order = torch.from_numpy(rng.permutation(N))
        self._variants = torch.from_numpy(rng.integers(V, size=N))
        return super().__iter__()

    def batch(self, places: range) -> Batch:
        """The batch of these places in the order of the epoch."""
        picked = self._order[places.start : places.stop]
        codes, label = self.stored.codes[picked, self._variants[picked]], self.stored.label
        batch = {"codes": codes, "index": self.stored.index[picked]}
        return batch if label is None else {**batch, "label": label[picked]}


def _check_memory(needed: int, copies: int, name: str) -> None:
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InputError(
            f"The codes of {name} take {needed / 1e9:.1f} GB in {copies} processes, this machine"
            f" has {available / 1e9:.1f} GB of memory. Set in_memory: false to stream them."
        )
