"""The training set as scores see it: in order, without flips, shared out among processes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from lit_mbldm.data.locate import ShardSet
from lit_mbldm.data.manifest import MANIFEST, Manifest


@dataclass(frozen=True)
class ReferenceSet:
    """This process's share of a training set.

    Attributes:
        kind: key of a batch.
        identity: of the whole set, of JSON's types; sets of equal identity are equal.
        count: samples of all processes together.
        start: number of this process's first sample; the next are counted on from it, in whatever
            order the workers hand them over.
        batches: `{kind: uint8 (B, …)}`; their number is its length.
    """

    kind: Literal["images", "codes"]
    identity: Any
    count: int
    start: int
    batches: Iterable[dict[str, Tensor]]


def first_of_each(shards: ShardSet, count: int | None) -> ShardSet:
    """At most `count` samples in all, of every shard its share, taken from its beginning."""
    if count is None or count >= shards.count:
        return shards
    taken, begin = [], 0
    for shard in shards.shards:
        end = begin + shard.count
        share = end * count // shards.count - begin * count // shards.count
        taken.append(replace(shard, count=share))
        begin = end
    return replace(shards, shards=tuple(taken))


def shards_identity(shards: ShardSet) -> list[list[str | int]]:
    """Of each shard: a checksum or, where no manifest has it, path and time; size; samples."""
    sums: dict[Any, dict[str, str]] = {}
    found: list[list[str | int]] = []
    for shard in shards.shards:
        folder, stat = shard.path.parent, shard.path.stat()
        if folder not in sums:
            entries = Manifest.read(folder).shards if (folder / MANIFEST).exists() else []
            sums[folder] = {entry.name: entry.sha256 for entry in entries}
        name = sums[folder].get(shard.path.name, f"{shard.path.resolve()} {stat.st_mtime_ns}")
        found.append([name, stat.st_size, shard.count])
    return found
