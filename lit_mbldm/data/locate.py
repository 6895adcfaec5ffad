"""Finding the shards a user names, and what they hold, without reading their samples."""

import glob
import itertools
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import webdataset
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_mbldm.data.images import IMAGE_SUFFIXES, ImageError
from lit_mbldm.data.manifest import MANIFEST, Kind, Manifest
from lit_mbldm.data.skips import SkipLog
from lit_mbldm.data.tar_reader import tar_members
from lit_mbldm.data.tar_writer import CODEC_MEMBER
from lit_mbldm.errors import InputError

Patterns = str | Path | list[str] | list[Path]


@dataclass(frozen=True)
class CodecTag:
    """The `__codec__` member of a code shard: the codec's fingerprint and (S, h, w)."""

    fingerprint: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Shard:
    """One local shard, its number of samples, and the codec's tag where it holds codes."""

    path: Path
    count: int
    tag: CodecTag | None

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
    """Find shards and read the head of each.

    Counts come from the manifest beside a shard; where there is none its members are counted.

    Args:
        patterns: local folders of shards, tars, globs or brace patterns, or a list of them.

    Raises:
        InputError: nothing found, more than 1 % unreadable, or shards that do not fit together.
    """
    paths = find_shards(patterns)
    name = str(patterns) if isinstance(patterns, str | Path) else ", ".join(map(str, patterns))
    manifests = {folder: _manifest(folder) for folder in {path.parent for path in paths}}
    shards, skips = [], SkipLog()
    for path in paths:
        manifest = manifests[path.parent]
        counts = {entry.name: entry.count for entry in manifest.shards} if manifest else {}
        try:
            tag = _read_tag(path)
            count = counts[path.name] if path.name in counts else count_samples(path)
            shards.append(Shard(path, count, tag))
        except (tarfile.TarError, OSError, ValueError) as error:
            skips.add(str(path), error)
    skips.check(len(shards), len(paths), 0.01, "These are shards, not images.")
    if skips.entries:
        rank_zero_warn(f"Left out {len(skips.entries)} unreadable shards:\n{skips.summary()}")
    for shard in shards[1:]:
        if shard.tag != shards[0].tag:
            raise InputError(
                f"Expected shards of one kind and codec, but {shards[0].path} holds"
                f" {_describe(shards[0])} and {shard.path} {_describe(shard)}."
            )
    sizes = {manifest.size if manifest else None for manifest in manifests.values()}
    return ShardSet(name, tuple(shards), sizes.pop() if len(sizes) == 1 else None)


def find_shards(patterns: Patterns) -> list[Path]:
    """Local tar files of folders, globs and brace patterns, in order.

    Raises:
        InputError: a URL, or a pattern that matches nothing.
    """
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str | Path) else patterns:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(pattern)):
            raise InputError(
                f"Expected a local path of shards, got {pattern!r}. Copy the shards to a local or"
                " mounted folder first: URLs and pipes are not opened."
            )
        found += _match(str(pattern))
    if not found:
        raise InputError("Expected at least one path of shards, got an empty list.")
    return found


def sample_key(member: str) -> str | None:
    """The WebDataset key of a member that holds an image or codes, None for any other."""
    name = Path(member).name
    if name.startswith((".", "__")) or Path(name).suffix.lower() not in IMAGE_SUFFIXES | {".npy"}:
        return None
    key: str | None = webdataset.tariterators.base_plus_ext(member)[0]
    return key


def count_samples(path: Path) -> int:
    """Count a shard's samples from the headers of its members; warns where it is cut off."""
    keys = []
    for member in tar_members(path):
        if isinstance(member, ImageError):
            rank_zero_warn(f"{path}: {member}; its samples up to there are used.")
        elif (key := sample_key(member.name)) is not None:
            keys.append(key)
    return sum(1 for _ in itertools.groupby(keys))


def _match(pattern: str) -> list[Path]:
    if Path(pattern).is_dir():
        return _in_folder(Path(pattern))
    if Path(pattern).is_file():
        return [Path(pattern)]
    try:
        expanded = webdataset.shardlists.expand_urls(pattern)
    except ValueError as error:
        raise InputError(f"Expected a brace pattern of shards, got {pattern!r}: {error}.") from None
    found = []
    for name in expanded:
        paths = sorted(Path(match) for match in glob.glob(name, recursive=True))
        if not paths:
            raise InputError(
                f"No shards match {name!r}. Expected a folder of .tar shards, a .tar, or a pattern"
                " such as 'shards/images-{000000..000009}.tar' or 'shards/*.tar'."
            )
        found += paths
    return found


def _in_folder(folder: Path) -> list[Path]:
    if (folder / MANIFEST).exists():
        paths = [folder / entry.name for entry in Manifest.read(folder).shards]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise InputError(
                f"{folder / MANIFEST} names shards that are missing: {', '.join(missing)}. Copy"
                " or write them again."
            )
    else:
        paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise InputError(
            f"Expected .tar shards in {folder}, found none. Write them with `lit-mbldm shards`."
        )
    return paths


def _manifest(folder: Path) -> Manifest | None:
    return Manifest.read(folder) if (folder / MANIFEST).exists() else None


def _read_tag(path: Path) -> CodecTag | None:
    with tarfile.open(path, "r:") as archive:
        member = archive.next()
        if member is None:
            raise ValueError("an empty archive")
        if member.name != CODEC_MEMBER:
            if member.name.endswith(".npy"):
                raise ValueError("codes without the codec's fingerprint; encode the images again")
            return None
        stream = archive.extractfile(member)
        if stream is None:
            raise ValueError(f"an unreadable {CODEC_MEMBER}")
        try:
            fields = json.loads(stream.read(1 << 16))
            S, h, w = (int(n) for n in fields["shape"])
            return CodecTag(str(fields["fingerprint"]), (S, h, w))
        except (KeyError, TypeError) as error:
            raise ValueError(f"an unreadable {CODEC_MEMBER}: {error!r}") from error


def _describe(shard: Shard) -> str:
    if shard.tag is None:
        return "images"
    return f"codes of {shard.tag.fingerprint[:12]}… and shape {shard.tag.shape}"
