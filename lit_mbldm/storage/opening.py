"""Opening local files and URLs for reading in order, through passing faults of the network.

A web server's files come as streamed answers, those of all other URLs by fsspec.
"""

import io
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from lit_mbldm.errors import InputError
from lit_mbldm.storage.faults import patiently
from lit_mbldm.storage.http_stream import HttpStream
from lit_mbldm.storage.urls import is_http, is_url, public

BUFFER_BYTES = 1 << 18
SLOW_SECONDS = 30.0  # of waiting, after which at least this came:
SLOW_BYTES = 1 << 15

# A worker that is forked must not close the connections it inherits: they are its parent's.
_kept: set[fsspec.AbstractFileSystem] = set()


def open_binary(url: str | Path) -> io.BufferedReader:
    """Open a local path or URL to be read from its beginning to its end.

    A URL is opened at its first read, and seeks only forwards. A connection that fails, a server's
    error and a time-out are tried again, from the same position, in growing intervals. What is
    raised below, reading a URL raises too.

    Raises:
        InputError: a protocol that is unknown or lacks its package.
        OSError: it cannot be read, changes on a web server meanwhile, or comes more slowly than
            `SLOW_BYTES` in `SLOW_SECONDS`; FileNotFoundError where it does not exist.
    """
    if is_url(str(url)):
        return io.BufferedReader(_RemoteFile(str(url)), BUFFER_BYTES)
    return open(url, "rb")


def listing(pattern: str) -> list[str]:
    """URLs that match a glob pattern, sorted; not for web servers, which cannot list.

    Raises:
        InputError: as `open_binary`.
        OSError: the file system cannot be asked.
    """
    fs, path = _file_system(pattern)
    return sorted(fs.unstrip_protocol(name) for name in patiently(pattern, lambda: fs.glob(path)))


def version(url: str) -> tuple[str, int | None]:
    """What changes when a URL's file does, as far as its server tells; and its size in bytes.

    Raises:
        InputError: as `open_binary`.
        OSError: it cannot be asked for.
    """
    if is_http(url):
        with closing(patiently(url, lambda: HttpStream(url))) as stream:
            headers = stream.headers
        mark = headers["ETag"] or headers["Last-Modified"] or ""
        return mark, int(headers["Content-Length"]) if headers["Content-Length"] else None
    fs, path = _file_system(url)
    facts = patiently(url, lambda: fs.info(path))
    keys = ("ETag", "etag", "md5", "LastModified", "last_modified", "mtime", "created")
    return next((str(facts[key]) for key in keys if facts.get(key)), ""), facts["size"]


class _RemoteFile(io.RawIOBase):
    """A URL's bytes in order; opened when first read, and again after a fault."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._file: Any = None
        self._position = 0
        self._failure: OSError | None = None
        self._mark: tuple[str, str] | None = None
        self._waited, self._came = 0.0, 0  # in seconds and bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move forwards: by reading, or for nothing before the first read."""
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < self._position:
            raise io.UnsupportedOperation(f"{public(self._url)} is only read forwards")
        if self._file is None:
            self._position = target
        while self._position < target and self.read(min(BUFFER_BYTES, target - self._position)):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; less than that is the end, or what there was before a lasting fault."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and self._failure is None:
            try:
                data = patiently(self._url, partial(self._read, len(view) - filled))
            except OSError as error:
                self._failure = type(error)(f"{error} (at byte {self._position})")
                break
            if not data:
                return filled
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
        if not filled and self._failure is not None:
            raise self._failure
        return filled

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file, begin = _open_at(self._url, self._position, self._mark)
                self._mark = getattr(self._file, "mark", None)
                while begin < self._position:
                    passed = len(self._timed(min(BUFFER_BYTES, self._position - begin)))
                    if not passed:
                        raise OSError("shorter than it was")
                    begin += passed
            return self._timed(size)
        except Exception:
            self._drop()
            raise

    def _timed(self, size: int) -> bytes:
        begin = time.monotonic()
        data: bytes = self._file.read(size)
        self._waited, self._came = self._waited + time.monotonic() - begin, self._came + len(data)
        if self._waited > SLOW_SECONDS:
            if self._came < SLOW_BYTES:
                raise ValueError(f"only {self._came} bytes came in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        return data

    def _drop(self) -> None:
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        self._file = None


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"Expected a URL of a known protocol (http, https, or one that fsspec opens), got"
            f" {public(url)}: {error}. Install the package that opens it, or copy the files to a"
            " local folder."
        ) from None
    _kept.add(fs)
    return fs, path


def _open_at(url: str, position: int, mark: tuple[str, str] | None) -> tuple[Any, int]:
    """Open for reading from a position on, or the one that comes with it, if it has the mark."""
    if is_http(url):
        answer = HttpStream(url, position, mark)
        return answer, answer.position
    fs, path = _file_system(url)
    stream = fs.open(path, "rb")
    if not stream.seekable():
        return stream, 0
    stream.seek(position)
    return stream, position
