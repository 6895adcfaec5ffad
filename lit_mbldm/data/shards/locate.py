"""What the shards that a user names hold, without reading their samples."""

import tarfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from lit_mbldm.data.shards.labels import Classes, class_names, common_classes, read_label
from lit_mbldm.data.shards.manifest import Kind
from lit_mbldm.data.shards.patterns import Manifests, Patterns, as_list, find_shards
from lit_mbldm.data.shards.reading import Shard
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar import (
    CodecTag,
    describe,
    is_label,
    read_tag,
    sample_members,
    tar_members,
)
from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import folder_of, is_url, open_binary, public, version


@dataclass(frozen=True)
class ShardSet:
    """Shards of one kind and codec, in order; `size` is the images' where a manifest tells it."""

    name: str
    shards: tuple[Shard, ...]
    size: int | None

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(shard.count for shard in self.shards)

    @property
    def kind(self) -> Kind:
        """What a sample is."""
        return "images" if self.tag is None else "codes"

    @property
    def classes(self) -> Classes:
        """Names of the samples' labels, None where they have none."""
        return self.shards[0].classes

    @property
    def tag(self) -> CodecTag | None:
        """The codec's tag of the shards, None for images."""
        return self.shards[0].tag

    def versions(self) -> list[list[str | int | None]]:
        """Version (sha256, or place and time), bytes and count of each; raises InputError."""
        try:
            return [[*_version(shard), shard.count] for shard in self.shards]
        except OSError as error:
            raise InputError(f"A shard cannot be read: {error}.") from None

    def first_of_each(self, count: int | None) -> "ShardSet":
        """Take at most `count` samples in all: of every shard its share, from its beginning."""
        total = self.count
        if count is None or count >= total:
            return self
        ends = [(shard.start + shard.count) * count // total for shard in self.shards]
        shares = zip(self.shards, [0, *ends], ends, strict=False)
        taken = (replace(shard, count=end - start, start=start) for shard, start, end in shares)
        return replace(self, shards=tuple(taken))


def open_shards(patterns: Patterns) -> ShardSet:
    """Find shards, as `find_shards` does, and what they hold by the manifest beside or by a look.

    Raises InputError where nothing is found, more than 1 % is unreadable, or they do not fit
    together.
    """
    manifests = Manifests()
    urls = find_shards(patterns, manifests)
    shards, skips, start = [], SkipLog(), 0
    for url in tqdm(urls, desc="shards", unit="shard", delay=2, leave=False):
        try:
            shard = _open(url, start, manifests)
        except (tarfile.TarError, OSError) as error:
            skips.add(public(url), error)
        else:
            shards.append(shard)
            start += shard.count
    skips.close(len(shards), "shards", 0.01, "These are shards, not images.")
    for shard in shards[1:]:
        if shard.tag != shards[0].tag:
            raise InputError(
                f"Expected shards of one kind and codec, but {public(shards[0].url)} holds"
                f" {describe(shards[0].tag)} and {public(shard.url)} {describe(shard.tag)}."
            )
    classes = common_classes({public(shard.url): shard.classes for shard in shards})
    shards = [replace(shard, classes=classes) for shard in shards]
    beside = [manifests[folder_of(url)] for url in urls]
    sizes = {manifest.size if manifest else None for manifest in beside}
    name = ", ".join(map(public, as_list(patterns)))
    return ShardSet(name, tuple(shards), sizes.pop() if len(sizes) == 1 else None)


def _open(url: str, start: int, manifests: Manifests) -> Shard:
    if told := manifests.of_shard(url):
        manifest, entry = told
        classes = tuple(manifest.classes) if manifest.classes is not None else None
        return Shard(url, entry.count, manifest.tag, start, entry, classes)
    with open_binary(url) as stream:
        tag = read_tag(stream, next(tar_members(stream), None))
    count, classes = _count(url, tag is not None)
    return Shard(url, count, tag, start, classes=classes)


def _count(url: str, of_codes: bool) -> tuple[int, Classes]:
    """Count a shard's samples by its members' headers, and see which classes it has.

    Warns of what is cut off or left out. Raises InputError where only some have labels.
    """
    count, last, more = 0, None, []
    labels = dict[str, int]()
    try:
        with open_binary(url) as stream:
            for key, member in sample_members(tar_members(stream), of_codes, labels=True):
                if is_label(member.name):
                    if (label := read_label(stream, member)) is not None:
                        labels[key] = label
                elif key == last:
                    more.append(member.name)
                else:
                    count, last = count + 1, key
    except (tarfile.TarError, OSError) as error:
        warnings.warn(f"{public(url)}: {error}; its samples up to there are used.", stacklevel=2)
        if labels and count and last not in labels:
            count -= 1  # its label is behind the end
    if more:
        warnings.warn(
            f"{public(url)}: {len(more)} members are left out, such as {more[0]}: one image is used"
            " of those whose names are equal up to the first dot. `lit-mbldm shards` uses all.",
            stacklevel=2,
        )
    if 0 < len(labels) < count:
        raise InputError(
            f"Only {len(labels)} of {count} samples in {public(url)} have a label (.cls or .json)."
            " Give each of them one, or none."
        )
    return count, class_names(url, max(labels.values())) if labels else None


def _version(shard: Shard) -> tuple[str, int | None]:
    if shard.entry is not None:
        return shard.entry.sha256, shard.entry.bytes
    if is_url(shard.url):
        time, size = version(shard.url)
        return f"{public(shard.url)} {time}", size
    stat = Path(shard.url).stat()
    return f"{Path(shard.url).resolve()} {stat.st_mtime_ns}", stat.st_size
