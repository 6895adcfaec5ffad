"""The shards a user names, and what they hold, without reading their samples."""

import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lit_mbldm.data.shards.codec_tag import CodecTag, read_tag
from lit_mbldm.data.shards.manifest import Kind
from lit_mbldm.data.shards.patterns import Manifests, Patterns, display_name, find_shards
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar_reader import Member, tar_members
from lit_mbldm.data.sources.images import IMAGE_SUFFIXES
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import open_binary
from lit_mbldm.storage.urls import base_name, folder_of, public


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
        url: local path or URL; with the secrets a URL may hold, so not for messages.
        count: number of samples.
        tag: the codec's where it holds codes, else None.
        start: number of its first sample in the set.
        sha256: that the whole file should have, where a manifest tells it.
    """

    url: str
    count: int
    tag: CodecTag | None
    start: int
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return base_name(self.url)

    @property
    def kind(self) -> Kind:
        """What a sample of the shard is."""
        return "images" if self.tag is None else "codes"


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
    skips.check(len(shards), len(urls), 0.01, "These are shards, not images.")
    if skips.entries:
        warnings.warn(
            f"Left out {len(skips.entries)} unreadable shards:\n{skips.summary()}", stacklevel=2
        )
    for shard in shards[1:]:
        if shard.tag != shards[0].tag:
            raise InputError(
                f"Expected shards of one kind and codec, but {public(shards[0].url)} holds"
                f" {_describe(shards[0])} and {public(shard.url)} {_describe(shard)}."
            )
    beside = [manifests.of_folder(folder) for folder in {folder_of(url) for url in urls}]
    sizes = {manifest.size if manifest else None for manifest in beside}
    size = sizes.pop() if len(sizes) == 1 else None
    return ShardSet(display_name(patterns), tuple(shards), size)


def sample_key(member: str) -> str | None:
    """The WebDataset key of a member that holds an image or codes, None for any other."""
    folder, slash, name = member.rpartition("/")
    if name.startswith((".", "__")) or Path(name).suffix.lower() not in IMAGE_SUFFIXES | {".npy"}:
        return None
    return folder + slash + name.partition(".")[0]


def samples(
    members: Iterable[Member], on_second: Callable[[str], None]
) -> Iterator[tuple[str, Member]]:
    """The key of each sample in a row, and its member that is used: its first image or codes.

    Args:
        members: in order.
        on_second: called with the name of each further image of a sample that has one, or codes of
            one that has codes, before the next sample comes.
    """
    last, of_codes = None, False
    for member in members:
        key, codes = sample_key(member.name), member.name.lower().endswith(".npy")
        if key is not None and key != last:
            last, of_codes = key, codes
            yield key, member
        elif key is not None and codes == of_codes:
            on_second(member.name)


def count_samples(url: str | Path) -> int:
    """Count a shard's samples from the headers of its members.

    Warns where it is cut off, and where a sample has several images. A URL is read whole.
    """
    more: list[str] = []
    count = 0
    try:
        with open_binary(url) as stream:
            for _ in samples(tar_members(stream), more.append):
                count += 1
    except (tarfile.TarError, OSError) as error:
        warnings.warn(
            f"{public(str(url))}: {error}; its samples up to there are used.", stacklevel=2
        )
    if more:
        warnings.warn(
            f"{public(str(url))}: {len(more)} members are left out, such as {more[0]}: what is"
            " before the first dot of a name is its sample, of which one image is used. `lit-mbldm"
            " shards` makes shards of all images.",
            stacklevel=2,
        )
    return count


def _open(url: str, start: int, manifests: Manifests) -> Shard:
    if (found := manifests.of_shard(url)) is None:
        tag = read_tag(url)
        return Shard(url, count_samples(url), tag, start)
    manifest, entry = found
    if manifest.kind == "images":
        tag = None
    elif manifest.fingerprint is None or manifest.shape is None:
        tag = read_tag(url)
    else:
        S, h, w = manifest.shape
        tag = CodecTag(manifest.fingerprint, (S, h, w))
    return Shard(url, entry.count, tag, start, entry.sha256)


def _describe(shard: Shard) -> str:
    if shard.tag is None:
        return "images"
    return f"codes of {shard.tag.fingerprint[:12]}… and shape {shard.tag.shape}"
