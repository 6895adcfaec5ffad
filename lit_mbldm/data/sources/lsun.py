"""LSUN's images: an LMDB of encoded images, as a file or in the zip it is published as."""

import hashlib
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, ParamSpec, TypeVar

from tqdm import tqdm

from lit_mbldm.data.sources.lmdb_reader import Head, LmdbError, LmdbReader
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing
from lit_mbldm.storage.full_disk import full_disk_explained

DATA_FILE = "data.mdb"
HEAD_BYTES = 1 << 17
COPY_BYTES = 1 << 20
PER_MAPPING = 1000
MIN_ENTRY_BYTES = 10  # of an LMDB's page

P = ParamSpec("P")
T = TypeVar("T")


class LmdbSource:
    """The values of an LMDB in the order of their keys, which are the names.

    Args:
        data: the file data.mdb. Its lock file is neither read nor written.

    Raises:
        InputError: not an LMDB that can be read, or a truncated one.
    """

    def __init__(self, data: Path) -> None:
        self.name = str(data.parent)
        self.ignored = Counter[str]()
        self._data = data
        stat = data.stat()
        with data.open("rb") as stream:
            self._head = _read_head(str(data), stream, stat.st_size)
        identity = f"{tuple(self._head)} {stat.st_size} {stat.st_mtime_ns}"
        self.identity = hashlib.sha256(identity.encode()).hexdigest()

    def __len__(self) -> int:
        return self._head.entries

    def __iter__(self) -> Iterator[RawImage]:
        count, start, more = 0, b"", True
        with closing(LmdbReader(self._data)) as reader:
            while more:
                keys = self._told(reader.keys, start, PER_MAPPING + 1)
                if more := len(keys) > PER_MAPPING:
                    start = keys.pop()
                count += len(keys)
                if count > len(self) or (not more and count < len(self)):
                    raise self._damaged(f"not {len(self)} entries, as it says, but {count}")
                for key in keys:
                    name = key.decode(errors="backslashreplace")
                    yield RawImage(name, partial(self._told, reader.value, key))

    def _told(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except LmdbError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"The LMDB {self._data} is damaged ({reason}). Download or copy it again; what"
            " is finished stays."
        )


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
        with zipfile.ZipFile(archive) as zipped, self._member_stream(zipped) as stream:
            self._head = _read_head(f"{member.filename} in {archive}", stream, member.file_size)
        self.identity = hashlib.sha256(f"{member.file_size} {member.CRC}".encode()).hexdigest()

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
        free = shutil.disk_usage(scratch).free
        if free < size:
            raise InputError(
                f"Unpacking {self._archive} needs {size:,} bytes in {scratch}, {free:,} are free."
                " Make room, or name a folder on another disk."
            )
        progress = tqdm(total=size, desc="unpack", unit="B", unit_scale=True)
        with (
            full_disk_explained(data),
            replacing(data) as temporary,
            temporary.open("wb") as out,
            zipfile.ZipFile(self._archive) as zipped,
            self._member_stream(zipped) as stream,
            progress,
        ):
            while block := stream.read(COPY_BYTES):
                out.write(block)
                progress.update(len(block))
        return data

    @contextmanager
    def _member_stream(self, zipped: zipfile.ZipFile) -> Iterator[IO[bytes]]:
        try:
            with zipped.open(self._member) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise InputError(
                f"{self._member.filename} in {self._archive} cannot be unpacked ({error})."
                " Download or copy the zip again."
            ) from error


def _read_head(name: str, stream: IO[bytes], size: int) -> Head:
    """Read an LMDB's first pages alone, which tell whether it is truncated."""
    with TemporaryDirectory() as folder:
        first_pages = Path(folder) / DATA_FILE
        first_pages.write_bytes(stream.read(HEAD_BYTES))
        try:
            with closing(LmdbReader(first_pages)) as reader:
                head = reader.head()
        except LmdbError as error:
            reason = str(error).removeprefix(f"{first_pages}: ")
            raise InputError(
                f"Expected an LMDB in {name} of {size:,} bytes, which cannot be opened ({reason})."
                " Download or copy it again."
            ) from error
    if size < head.size:
        raise InputError(
            f"The LMDB {name} is truncated: {size:,} of {head.size:,} bytes. Download or copy it"
            " again."
        )
    if head.entries * MIN_ENTRY_BYTES > head.size:
        raise InputError(
            f"The LMDB {name} is damaged: {head.entries:,} entries in {head.size:,} bytes. Download"
            " or copy it again."
        )
    return head
