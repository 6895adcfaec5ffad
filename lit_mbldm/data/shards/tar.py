"""One shard: an uncompressed tar, its samples, and the codec's tag of code shards.

One strict parser serves all readers: what is damaged is an error, never an early end.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lit_mbldm.images import IMAGE_SUFFIXES, MAX_BYTES, ImageError
from lit_mbldm.storage.atomic import replacing

CODEC_MEMBER = "__codec__"
LABEL_SUFFIXES = {".cls", ".json"}
BLOCK = tarfile.BLOCKSIZE
MAX_SKIPPED_BYTES = 1 << 40  # of a file that is passed over
MAX_HEADER_BYTES = 1 << 20  # of an extended header
MAX_JSON_BYTES = 1 << 26
PAX_HEADERS = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
EXTENSIONS = {*PAX_HEADERS, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_RECORD = re.compile(rb"([1-9]\d{0,6}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, its size in bytes, and the byte its contents begin at."""

    name: str
    size: int
    offset: int


@dataclass(frozen=True)
class CodecTag:
    """The `__codec__` member of a code shard: the codec's fingerprint and (S, h, w)."""

    fingerprint: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, number of samples, size in bytes, sha256 (hex)."""

    name: str
    count: int
    bytes: int
    sha256: str

    def is_in(self, folder: Path, contents: bool) -> bool:
        """Whether the file is in `folder`, with its size and, if asked, its contents."""
        path = folder / self.name
        return (
            path.is_file()
            and path.stat().st_size == self.bytes
            and not (contents and file_sha256(path) != self.sha256)
        )


def tar_members(stream: BinaryIO) -> Iterator[Member]:
    """The regular files of an uncompressed tar; links, folders and devices are passed over.

    The stream is sought only forwards; when a member comes, it stands at its contents. Raises
    tarfile.ReadError where it is no tar, ends early, goes on behind its end, or holds a sparse file
    or a header that is damaged or means an impossible size.
    """
    told: dict[str, str] = {}  # of the next member, by extended headers
    while any(block := _read(stream, BLOCK, start := stream.tell())):  # zeros end the tar
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _damaged(start, str(error)) from error
        if header.type in EXTENSIONS:
            size = _checked(header.size, MAX_HEADER_BYTES, start)
            told |= _extension(header.type, _read(stream, size, start + BLOCK), start)
        else:
            if header.type == tarfile.GNUTYPE_SPARSE or any("GNU.sparse" in key for key in told):
                raise _damaged(start, "a sparse file; write the tar without --sparse")
            told_size = told.get("size", str(header.size))[:40]
            size = _checked(int(told_size), MAX_SKIPPED_BYTES, start)
            if header.isreg():
                yield Member(told.get("path", header.name), size, start + BLOCK)
            if header.isdir() or header.issym() or header.islnk() or header.isdev():
                size = 0
            told = {}
        stream.seek(start + BLOCK + -(-size // BLOCK) * BLOCK)
    while block := stream.read(1 << 16):
        if any(block):
            raise _damaged(start, "it ends here, but more follows")


def sample_members(
    members: Iterable[Member], of_codes: bool, labels: bool
) -> Iterator[tuple[str, Member]]:
    """The images or, of codes, the .npy files, with `labels` if wanted, and their samples' keys."""
    suffixes = ({".npy"} if of_codes else IMAGE_SUFFIXES) | (LABEL_SUFFIXES if labels else set())
    for member in members:
        name = member.name.rpartition("/")[2]
        if Path(name).suffix.lower() in suffixes and not name.startswith((".", "__")):
            yield sample_key(member.name), member


def sample_key(name: str) -> str:
    """By WebDataset's rule, a member's name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def is_label(name: str) -> bool:
    """Whether a member of this name may hold a label, by its suffix."""
    return Path(name).suffix.lower() in LABEL_SUFFIXES


def read_member(stream: BinaryIO, member: Member) -> bytes:
    """The contents of the member that the stream stands at; ImageError where it is too large."""
    if member.size > MAX_BYTES:
        raise ImageError(f"{member.size} bytes, more than the {MAX_BYTES} allowed")
    return _read(stream, member.size, member.offset)


def read_tag(stream: BinaryIO, first: Member | None) -> CodecTag | None:
    """The tag of a shard whose first member comes next, None of images; raises ReadError."""
    if first is None:
        raise tarfile.ReadError("a tar archive without files")
    if first.name != CODEC_MEMBER:
        if first.name.lower().endswith(".npy"):
            raise tarfile.ReadError("codes without the codec's fingerprint; encode them again")
        return None
    try:
        text = _read(stream, _checked(first.size, MAX_HEADER_BYTES, 0), first.offset)
        fields = read_json(io.BytesIO(text))
        return make_tag(fields["fingerprint"], fields["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: {error!r}") from error


def make_tag(fingerprint: object, shape: object) -> CodecTag:
    """The tag of these values, read from JSON; raises ValueError where they are none."""
    if isinstance(fingerprint, str) and isinstance(shape, list) and len(shape) == 3:
        S, h, w = shape
        if all(type(n) is int and 0 < n < 1 << 16 for n in shape):
            return CodecTag(fingerprint, (S, h, w))
    raise ValueError(f"no fingerprint and (S, h, w): {fingerprint!r:.80}, {shape!r:.80}")


def describe(tag: CodecTag | None) -> str:
    """What shards with this tag hold."""
    return f"codes of {tag.fingerprint[:12]}…, shape {tag.shape}" if tag else "images"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> ShardEntry:
    """Write a shard of (name, contents), whole or not at all; equal members give equal bytes."""
    count = 0
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
                count += name != CODEC_MEMBER and not is_label(name)
        return ShardEntry(path.name, count, temporary.stat().st_size, file_sha256(temporary))


def read_json(stream: BinaryIO) -> Any:
    """What a stream of JSON holds; raises ValueError where it is none, deep or endless."""
    blocks = iter(partial(stream.read, 1 << 20), b"")  # not at once: that takes all the memory
    text = b"".join(islice(blocks, 1 + (MAX_JSON_BYTES >> 20)))
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES} bytes of JSON")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _extension(kind: bytes, data: bytes, start: int) -> dict[str, str]:
    """What an extended header tells of the next member: pax records, or a long name as `path`."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    found = dict[str, str]()
    while kind in PAX_HEADERS and data:
        record = _RECORD.match(data)
        end = int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data) or data[end - 1] != ord("\n"):
            raise _damaged(start, "a damaged extended header")
        value = data[record.end() : end - 1].decode("utf-8", "surrogateescape")
        found[record[2].decode("utf-8", "replace")] = value
        data = data[end:]
    if not re.fullmatch("[0-9]+", found.get("size", "0")):
        raise _damaged(start, "a damaged extended header")
    return found


def _read(stream: BinaryIO, size: int, start: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _damaged(start + len(data), "it is cut off here")
    return data


def _checked(size: int, most: int, start: int) -> int:
    if not 0 <= size <= most:
        raise _damaged(start, f"a size of {size} bytes")
    return size


def _damaged(position: int, reason: str) -> tarfile.ReadError:
    return tarfile.ReadError(f"truncated or corrupt tar archive at byte {position}: {reason}")
