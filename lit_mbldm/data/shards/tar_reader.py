"""The files in an uncompressed tar, read strictly and in order: the one parser of all readers."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lit_mbldm.data.sources.raw_image import check_bytes

BLOCK = tarfile.BLOCKSIZE
MAX_SKIPPED_BYTES = 1 << 40  # of a file that is passed over; one that is read is no larger than
MAX_EXTENSION_BYTES = 1 << 20  # an image, and an extended header than this
PAX_HEADERS = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
EXTENSIONS = {*PAX_HEADERS, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
WITHOUT_DATA = {tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE} | {
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
}
_RECORD = re.compile(rb"([1-9]\d{0,6}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, its size in bytes, and the byte its contents begin at."""

    name: str
    size: int
    offset: int


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
            size = _checked(header.size, MAX_EXTENSION_BYTES, start)
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
    position = 0 if kind in PAX_HEADERS else len(data)
    while position < len(data):
        record = _RECORD.match(data, position)
        end = position + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data) or data[end - 1] != ord("\n"):
            raise _damaged(start, "a damaged extended header")
        value = data[record.end() : end - 1].decode("utf-8", "surrogateescape")
        found[record[2].decode("utf-8", "replace")] = value
        position = end
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
