"""Uncompressed tars: the one parser of all readers, the writer, and the codec's tag of code shards.

Reading is strict: what is damaged is an error, never an early end.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lit_mbldm.data.shards.manifest import ShardEntry, file_sha256, is_shape, read_json
from lit_mbldm.data.sources.raw_image import check_bytes
from lit_mbldm.storage.atomic import replacing

CODEC_MEMBER = "__codec__"
BLOCK = tarfile.BLOCKSIZE
MAX_SKIPPED_BYTES = 1 << 40  # of a file that is passed over
MAX_HEADER_BYTES = 1 << 20  # of an extended header
PAX_HEADERS = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
EXTENSIONS = {*PAX_HEADERS, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
DEVICES = {tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE}
WITHOUT_DATA = {tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, *DEVICES}
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


def tar_members(stream: BinaryIO) -> Iterator[Member]:
    """The regular files of an uncompressed tar; links, folders and devices are passed over.

    When a member comes, the stream stands at its contents, which may be read or left.

    Args:
        stream: at the beginning of the tar; it is sought only forwards.

    Raises:
        tarfile.ReadError: it is no tar, ends early, goes on behind its end, or holds a sparse file
            or a header that is damaged or means an impossible size.
        OSError: the stream cannot be read.
    """
    told: dict[str, str] = {}  # of the next member, by extended headers
    while (header := _header(stream, start := stream.tell())) is not None:
        if header.type in EXTENSIONS:
            size = _checked(header.size, MAX_HEADER_BYTES, start)
            told |= _extension(header.type, _read(stream, size, start + BLOCK), start)
        else:
            if header.type == tarfile.GNUTYPE_SPARSE or any("GNU.sparse" in key for key in told):
                raise _damaged(start, "a sparse file; write the tar without --sparse")
            told_size = told.get("size", str(header.size))[:40]
            size = _checked(int(told_size), MAX_SKIPPED_BYTES, start)
            if header.type in FILES:
                yield Member(told.get("path", header.name), size, start + BLOCK)
            size *= header.type not in WITHOUT_DATA
            told = {}
        stream.seek(start + BLOCK + -(-size // BLOCK) * BLOCK)
    while block := stream.read(1 << 16):
        if any(block):
            raise _damaged(start, "it ends here, but more follows")


def read_member(stream: BinaryIO, member: Member) -> bytes:
    """The contents of the member that the stream stands at.

    Raises:
        ImageError: it is larger than any image or codes.
        tarfile.ReadError: the tar ends before it does.
        OSError: the stream cannot be read.
    """
    check_bytes(member.size)
    return _read(stream, member.size, member.offset)


def read_tag(stream: BinaryIO, first: Member | None) -> CodecTag | None:
    """The tag of a shard, None where it holds images; only a tag is read.

    Args:
        stream: that stands at the contents of the first member.
        first: the shard's first member.

    Raises:
        tarfile.ReadError: no member, an unreadable tag, or codes without one.
        OSError: the stream cannot be read.
    """
    if first is None:
        raise tarfile.ReadError("a tar archive without files")
    if first.name != CODEC_MEMBER:
        if first.name.lower().endswith(".npy"):
            raise tarfile.ReadError("codes without the codec's fingerprint; encode them again")
        return None
    try:
        fields = read_json(_read(stream, _checked(first.size, MAX_HEADER_BYTES, 0), first.offset))
        fingerprint, shape = fields["fingerprint"], fields["shape"]
    except (KeyError, TypeError, ValueError) as error:
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: {error!r}") from error
    if not (isinstance(fingerprint, str) and is_shape(shape)):
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: no fingerprint and (S, h, w)")
    S, h, w = shape
    return CodecTag(fingerprint, (S, h, w))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> ShardEntry:
    """Write a shard under a temporary name and rename it; the same members give the same bytes.

    Names may be of any length and alphabet.

    Args:
        path: the shard.
        members: (name, contents), written in this order; all but `__codec__` count as samples.
    """
    count = 0
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
                count += name != CODEC_MEMBER
        entry = ShardEntry(path.name, count, temporary.stat().st_size, file_sha256(temporary))
    return entry


def _header(stream: BinaryIO, start: int) -> tarfile.TarInfo | None:
    """The next header; None for the block of zeros that ends the tar."""
    block = _read(stream, BLOCK, start)
    if not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _damaged(start, str(error)) from error


def _extension(kind: bytes, data: bytes, start: int) -> dict[str, str]:
    """What an extended header tells of the next member: pax records, or a long name as `path`."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    found: dict[str, str] = {}
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
