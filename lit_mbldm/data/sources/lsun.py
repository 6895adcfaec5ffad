"""LSUN's images: an LMDB of encoded images, as a file or in the zip it is published as."""

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from weakref import WeakValueDictionary

import lmdb
from tqdm import tqdm

from lit_mbldm.data.sources.raw_image import ImageSource, RawImage
from lit_mbldm.errors import InputError
from lit_mbldm.images import check_bytes
from lit_mbldm.storage.atomic import check_room, replacing

DATA_FILE = "data.mdb"
HEAD_BYTES = 1 << 17
COPY_BYTES = 1 << 20
PER_MAPPING = 1000  # images, after which the file is mapped anew: its pages count as memory

# LMDB opens a file, of a device and inode, once; a pass that an error ended may still hold it
_opened: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()


def open_lmdb(data: Path) -> ImageSource:
    """The values of an LMDB in the order of their keys, which are the names.

    `data` is its file data.mdb; the lock file is neither read nor written. Raises InputError where
    it is no LMDB or truncated; on iteration, where LMDB finds damage. Other damage can end the
    process, since LMDB trusts what it maps.
    """
    stat = data.stat()
    head = _read_head(data, str(data), stat.st_size)
    fingerprint = _sha256(f"{head} {stat.st_size} {stat.st_mtime_ns}")
    return ImageSource(str(data.parent), head[0], fingerprint, partial(_values, data))


def open_zipped_lmdb(archive: Path, member: zipfile.ZipInfo, scratch: Path | None) -> ImageSource:
    """The values of the LMDB that a zip holds; it is unpacked when the first is asked for.

    It stays in the folder `scratch`, or None for a temporary one each time. Nothing but `member` is
    unpacked, and its path is of no effect. Raises InputError as `open_lmdb`, or for a damaged zip.
    """
    with TemporaryDirectory() as folder, _reading(archive, member) as stream:
        first_pages = Path(folder) / DATA_FILE
        first_pages.write_bytes(stream.read(HEAD_BYTES))
        head = _read_head(first_pages, f"{member.filename} in {archive}", member.file_size)
    fingerprint = _sha256(f"{member.file_size} {member.CRC}")
    start = partial(_unpacked, archive, member, scratch)
    return ImageSource(str(archive), head[0], fingerprint, start)


def _values(data: Path) -> Iterator[RawImage]:
    start: bytes | None = b""
    try:
        while start is not None:
            start = yield from _mapped(data, start)
    except lmdb.Error as error:
        raise InputError(
            f"The LMDB {data} is damaged ({error}). Copy it again; what is finished stays."
        ) from error


def _mapped(data: Path, start: bytes) -> Generator[RawImage, None, bytes | None]:
    """Map the file, give images from the key `start` on, and return the key that follows."""
    with _open(data).begin(buffers=True) as transaction:
        cursor = transaction.cursor()
        cursor.set_range(start)
        for count, (key, value) in enumerate(cursor):
            if count == PER_MAPPING:
                return bytes(key)
            yield RawImage(bytes(key).decode(errors="backslashreplace"), partial(_copy, value))
    return None


def _unpacked(archive: Path, member: zipfile.ZipInfo, scratch: Path | None) -> Iterator[RawImage]:
    with TemporaryDirectory() as temporary:
        data = (scratch or Path(temporary)) / DATA_FILE
        if not data.exists() or data.stat().st_size != member.file_size:
            for left_over in data.parent.glob(f".{DATA_FILE}.*.tmp"):
                left_over.unlink()
            check_room(data.parent, member.file_size, f"Unpacking {archive}")
            with (
                replacing(data) as unpacked,
                unpacked.open("wb") as out,
                _reading(archive, member) as stream,
                tqdm.wrapattr(out, "write", total=member.file_size, desc="unpack") as counted,
            ):
                shutil.copyfileobj(stream, counted, COPY_BYTES)
        yield from _values(data)


@contextmanager
def _reading(archive: Path, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as stream:
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{member.filename} in {archive} cannot be unpacked ({error}). Download it again."
        ) from error


def _open(data: Path) -> lmdb.Environment:
    """Open without a lock file, which read-only storage may not allow."""
    stat = data.stat()
    key = stat.st_dev, stat.st_ino
    if (environment := _opened.get(key)) is None:
        environment = lmdb.open(str(data), subdir=False, readonly=True, lock=False)
        _opened[key] = environment
    return environment


def _read_head(data: Path, name: str, size: int) -> tuple[int, int, int]:
    """Entries, bytes and last transaction of `data`, an LMDB of `size` bytes or its beginning."""
    try:
        environment = _open(data)
        info, stat = environment.info(), environment.stat()
    except lmdb.Error as error:
        raise InputError(
            f"Expected an LMDB in {name} of {size:,} bytes, which cannot be opened ({error})."
            " Copy it again."
        ) from error
    needed = (info["last_pgno"] + 1) * stat["psize"]
    if size < needed:
        raise InputError(
            f"The LMDB {name} is truncated: {size:,} of {needed:,} bytes. Copy it again."
        )
    return stat["entries"], needed, info["last_txnid"]


def _copy(value: memoryview) -> bytes:
    check_bytes(len(value))
    return bytes(value)


def _sha256(facts: str) -> str:
    return hashlib.sha256(facts.encode()).hexdigest()
