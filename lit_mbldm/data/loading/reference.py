"""The training set as scores see it: in order, without flips, shared out among processes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lit_mbldm.data.shards.locate import Shard, ShardSet
from lit_mbldm.data.shards.patterns import Manifests
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import version
from lit_mbldm.storage.urls import is_url, public


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
    taken, begin, start = [], 0, 0
    for shard in shards.shards:
        end = begin + shard.count
        share = end * count // shards.count - begin * count // shards.count
        taken.append(replace(shard, count=share, start=start))
        begin, start = end, start + share
    return replace(shards, shards=tuple(taken))


def shards_identity(shards: ShardSet) -> list[list[str | int | None]]:
    """Of each shard: a checksum or, where no manifest has it, place and version; size; samples.

    Raises:
        InputError: a shard that no manifest names cannot be asked about.
    """
    manifests = Manifests()
    return [[*_checksum(shard, manifests), shard.count] for shard in shards.shards]


def _checksum(shard: Shard, manifests: Manifests) -> tuple[str, int | None]:
    found = manifests.of_shard(shard.url)
    if is_url(shard.url):
        if found is not None:
            return found[1].sha256, found[1].bytes
        try:
            mark, size = version(shard.url)
        except OSError as error:
            raise InputError(f"A shard cannot be read: {error}.") from None
        return f"{public(shard.url)} {mark}", size
    stat = Path(shard.url).stat()
    if found is not None:
        return found[1].sha256, stat.st_size
    return f"{Path(shard.url).resolve()} {stat.st_mtime_ns}", stat.st_size
