"""LSUN's images: an LMDB of encoded images, as a file or in the zip it is published as."""

import hashlib
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple
from weakref import WeakValueDictionary

import lmdb
from tqdm import tqdm

from lit_mbldm.data.sources.raw_image import RawImage, check_bytes
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import check_room, full_disk_explained, replacing

DATA_FILE = "data.mdb"
HEAD_BYTES = 1 << 17
COPY_BYTES = 1 << 20
PER_MAPPING = 1000  # images, after which the file is mapped anew: its pages count as memory

# of each file by device and inode: LMDB opens a file only once in a process
_opened: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()


class Head(NamedTuple):
    """What an LMDB says of itself: entries, bytes it needs, number of its last transaction."""

    entries: int
    size: int
    transaction: int


class LmdbSource:
    """The values of an LMDB in the order of their keys, which are the names.

    A truncated LMDB is refused, and so is one that LMDB finds damaged. Other damage can end the
    process, since LMDB trusts what it maps.

    Args:
        data: the file data.mdb. Its lock file is neither read nor written.

    Raises:
        InputError: not an LMDB that can be read, or a truncated one; on iteration, a damaged one.
    """

    def __init__(self, data: Path) -> None:
        self.name = str(data.parent)
        self.ignored = Counter[str]()
        self._data = data
        stat = data.stat()
        self._head = _read_head(data, str(data), stat.st_size)
        facts = f"{tuple(self._head)} {stat.st_size} {stat.st_mtime_ns}"
        self.fingerprint = hashlib.sha256(facts.encode()).hexdigest()

    def __len__(self) -> int:
        return self._head.entries

    def __iter__(self) -> Iterator[RawImage]:
        start: bytes | None = b""
        try:
            while start is not None:
                start = yield from self._mapped(start)
        except lmdb.Error as error:
            raise InputError(
                f"The LMDB {self._data} is damaged ({error}). Download or copy it again; what is"
                " finished stays."
            ) from error

    def _mapped(self, start: bytes) -> Generator[RawImage, None, bytes | None]:
        """Map the file, give images from the key `start` on, and return the key that follows."""
        with _open(self._data).begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            cursor.set_range(start)
            for count, (key, value) in enumerate(cursor):
                if count == PER_MAPPING:
                    return bytes(key)
                name = bytes(key).decode(errors="backslashreplace")
                yield RawImage(name, partial(_copy, value))
        return None


class ZippedLmdbSource:
    """The values of the LMDB that a zip holds; it is unpacked when the first is asked for.

    Args:
        archive: the zip.
        member: data.mdb in it; nothing else is unpacked, and its path is of no effect.
        scratch: where it is unpacked and stays; None for a temporary folder each time.

    Raises:
        InputError: not an LMDB that can be read, or a damaged zip.
    """

    def __init__(self, archive: Path, member: zipfile.ZipInfo, scratch: Path | None) -> None:
        self.name = str(archive)
        self.ignored = Counter[str]()
        self._archive = archive
        self._member = member
        self._scratch = scratch
        with TemporaryDirectory() as folder, self._member_stream() as stream:
            first_pages = Path(folder) / DATA_FILE
            first_pages.write_bytes(stream.read(HEAD_BYTES))
            name = f"{member.filename} in {archive}"
            self._head = _read_head(first_pages, name, member.file_size)
        self.fingerprint = hashlib.sha256(f"{member.file_size} {member.CRC}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._head.entries

    def __iter__(self) -> Iterator[RawImage]:
        with ExitStack() as stack:
            scratch = self._scratch or Path(stack.enter_context(TemporaryDirectory()))
            yield from LmdbSource(self._unpacked(scratch))

    def _unpacked(self, scratch: Path) -> Path:
        data, size = scratch / DATA_FILE, self._member.file_size
        if data.exists() and data.stat().st_size == size:
            return data
        for left_over in scratch.glob(f".{DATA_FILE}.*.tmp"):
            left_over.unlink()
        check_room(scratch, size, f"Unpacking {self._archive}")
        with (
            full_disk_explained(data),
            replacing(data) as temporary,
            temporary.open("wb") as out,
            self._member_stream() as stream,
            tqdm.wrapattr(out, "write", total=size, desc="unpack") as counted,
        ):
            shutil.copyfileobj(stream, counted, COPY_BYTES)
        return data

    @contextmanager
    def _member_stream(self) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self._archive) as zipped, zipped.open(self._member) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise InputError(
                f"{self._member.filename} in {self._archive} cannot be unpacked ({error})."
                " Download or copy the zip again."
            ) from error


def _open(data: Path) -> lmdb.Environment:
    """Open without a lock file, which read-only storage may not allow."""
    stat = data.stat()
    key = stat.st_dev, stat.st_ino
    if (environment := _opened.get(key)) is None:
        environment = lmdb.open(str(data), subdir=False, readonly=True, lock=False)
        _opened[key] = environment
    return environment


def _read_head(data: Path, name: str, size: int) -> Head:
    """Read what the first pages of `data` say of an LMDB that should have `size` bytes."""
    try:
        environment = _open(data)
        info, stat = environment.info(), environment.stat()
    except lmdb.Error as error:
        raise InputError(
            f"Expected an LMDB in {name} of {size:,} bytes, which cannot be opened ({error})."
            " Download or copy it again."
        ) from error
    head = Head(stat["entries"], (info["last_pgno"] + 1) * stat["psize"], info["last_txnid"])
    if size < head.size:
        raise InputError(
            f"The LMDB {name} is truncated: {size:,} of {head.size:,} bytes. Download or copy it"
            " again."
        )
    return head


def _copy(value: memoryview) -> bytes:
    check_bytes(len(value))
    return bytes(value)
