"""The shards a user names, and what they hold, without reading their samples."""

import tarfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

from tqdm import tqdm

from lit_mbldm.data.shards.manifest import Kind, ShardEntry
from lit_mbldm.data.shards.patterns import Manifests, Patterns, display_name, find_shards
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar import CodecTag, Member, read_tag, tar_members
from lit_mbldm.data.sources.images import IMAGE_SUFFIXES
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import open_binary, version
from lit_mbldm.storage.urls import base_name, folder_of, is_url, public


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
        url: local path or URL; with the secrets a URL may hold, so not for messages.
        count: number of samples.
        tag: the codec's where it holds codes, else None.
        start: number of its first sample in the set.
        entry: what the manifest beside it tells of the whole file, if there is one.
    """

    url: str
    count: int
    tag: CodecTag | None
    start: int
    entry: ShardEntry | None = None

    @property
    def name(self) -> str:
        """File name."""
        return base_name(self.url)

    @property
    def kind(self) -> Kind:
        """What a sample of the shard is."""
        return "images" if self.tag is None else "codes"

    def version(self) -> tuple[str, int | None]:
        """The sha256 or, where no manifest tells it, place and time; and the size in bytes.

        Raises:
            InputError: a shard that no manifest names cannot be asked about.
        """
        try:
            if not is_url(self.url):
                stat = Path(self.url).stat()
                place = f"{Path(self.url).resolve()} {stat.st_mtime_ns}"
                return self.entry.sha256 if self.entry else place, stat.st_size
            if self.entry:
                return self.entry.sha256, self.entry.bytes
            time, size = version(self.url)
            return f"{public(self.url)} {time}", size
        except OSError as error:
            raise InputError(f"A shard cannot be read: {error}.") from None


@dataclass(frozen=True)
class ShardSet:
    """Shards of one kind, in order, and of one codec where they hold codes.

    Attributes:
        name: the pattern they were found by.
        size: side of the images where a manifest tells it.
    """

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
        return self.shards[0].kind

    @property
    def tag(self) -> CodecTag | None:
        """The codec's tag of the shards, None for images."""
        return self.shards[0].tag

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raise InputError where the shards hold codes of another codec."""
        if self.tag is not None and self.tag.fingerprint != fingerprint:
            raise InputError(
                f"Expected codes of the codec {fingerprint[:12]}…, but {self.name} holds codes of"
                f" {self.tag.fingerprint[:12]}…. Encode the images again with `lit-mbldm encode"
                " SHARDS OUT --codec CODEC`, or name the codec the shards were made with."
            )

    def versions(self) -> list[list[str | int | None]]:
        """Version and count of each shard, which differ where contents do; raises InputError."""
        return [[*shard.version(), shard.count] for shard in self.shards]

    def first_of_each(self, count: int | None) -> "ShardSet":
        """At most `count` samples in all, of every shard its share, taken from its beginning."""
        total = self.count
        if count is None or count >= total:
            return self
        taken, begin, start = [], 0, 0
        for shard in self.shards:
            end = begin + shard.count
            share = end * count // total - begin * count // total
            taken.append(replace(shard, count=share, start=start))
            begin, start = end, start + share
        return replace(self, shards=tuple(taken))


def open_shards(patterns: Patterns) -> ShardSet:
    """Find shards and what they hold.

    The manifest beside a shard tells it, and reading finds a shard that is of another codec than
    its manifest; where there is none, the shard's head is read and its members are counted.

    Args:
        patterns: as for `find_shards`.

    Raises:
        InputError: nothing found, more than 1 % unreadable, or shards that do not fit together.
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
    skips.close(len(shards), "the shards", 0.01, "These are shards, not images.")
    for shard in shards[1:]:
        if shard.tag != shards[0].tag:
            raise InputError(
                f"Expected shards of one kind and codec, but {public(shards[0].url)} holds"
                f" {describe(shards[0].tag)} and {public(shard.url)} {describe(shard.tag)}."
            )
    beside = [manifests[folder] for folder in {folder_of(url) for url in urls}]
    sizes = {manifest.size if manifest else None for manifest in beside}
    size = sizes.pop() if len(sizes) == 1 else None
    return ShardSet(display_name(patterns), tuple(shards), size)


def samples(members: Iterable[Member], of_codes: bool) -> Iterator[tuple[str, Member]]:
    """The key of each sample, by WebDataset's rule, and its first image or, of codes, first .npy.

    Args:
        members: in order.
        of_codes: whether the shard holds codes.
    """
    for _, group in groupby(_keyed(members, of_codes), itemgetter(0)):
        yield next(group)


def describe(tag: CodecTag | None) -> str:
    """What shards with this tag hold."""
    return f"codes of {tag.fingerprint[:12]}…, shape {tag.shape}" if tag else "images"


def _open(url: str, start: int, manifests: Manifests) -> Shard:
    manifest, entry = manifests.of_shard(url) or (None, None)
    tag = None
    if manifest is not None and manifest.fingerprint is not None and manifest.shape is not None:
        S, h, w = manifest.shape
        tag = CodecTag(manifest.fingerprint, (S, h, w))
    elif manifest is None or manifest.kind == "codes":
        with open_binary(url) as stream:
            tag = read_tag(stream, next(tar_members(stream), None))
    count = entry.count if entry is not None else _count(url, tag is not None)
    return Shard(url, count, tag, start, entry)


def _count(url: str, of_codes: bool) -> int:
    """Count a shard's samples from the headers of its members; a URL is read whole.

    Warns where it is cut off, and where a sample has several images.
    """
    found: list[tuple[str, Member]] = []
    try:
        with open_binary(url) as stream:
            for keyed in _keyed(tar_members(stream), of_codes):
                found.append(keyed)
    except (tarfile.TarError, OSError) as error:
        warnings.warn(f"{public(url)}: {error}; its samples up to there are used.", stacklevel=2)
    more = [member.name for (a, _), (b, member) in pairwise(found) if a == b]
    if more:
        warnings.warn(
            f"{public(url)}: {len(more)} members are left out, such as {more[0]}: what is before"
            " the first dot of a name is its sample, of which one image is used. `lit-mbldm shards`"
            " makes shards of all images.",
            stacklevel=2,
        )
    return len(found) - len(more)


def _keyed(members: Iterable[Member], of_codes: bool) -> Iterator[tuple[str, Member]]:
    suffixes = {".npy"} if of_codes else IMAGE_SUFFIXES
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        if Path(name).suffix.lower() in suffixes and not name.startswith((".", "__")):
            yield folder + slash + name.partition(".")[0], member
