"""Opening local files and URLs for reading in order, through passing faults of the network.

urllib asks web servers, so that environment variables such as `https_proxy` hold; fsspec opens all
other URLs.
"""

import base64
import io
import string
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

import fsspec
from fsspec.core import url_to_fs

from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import is_http, is_url, public, without_secrets

BUFFER_BYTES = 1 << 18
TIMEOUT = 30.0  # in seconds, of silence
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # in seconds, between attempts
PASSING = {408, 425, 429}  # of HTTP's statuses below 500
PART = 206  # HTTP's status of an answer that begins where it was asked to

T = TypeVar("T")

# A worker that is forked must not close the connections it inherits: they are its parent's.
_kept: set[fsspec.AbstractFileSystem] = set()


def open_binary(url: str | Path) -> io.BufferedReader:
    """Open a local path or URL to be read from its beginning to its end.

    A URL is opened at its first read, and seeks only forwards. A connection that fails, a server's
    error and a time-out are tried again, from the same position, after each of `PAUSES`. What is
    raised below, reading a URL raises too; messages name the URL without its secrets.

    Raises:
        InputError: a protocol that is unknown or lacks its package.
        OSError: it cannot be read, or changes on a web server meanwhile; FileNotFoundError or
            PermissionError where it does not exist or is denied.
    """
    if is_url(str(url)):
        return io.BufferedReader(_RemoteFile(str(url)), BUFFER_BYTES)
    return open(url, "rb")


def listing(pattern: str) -> list[str]:
    """URLs that match a glob pattern, sorted; not for web servers, which cannot list.

    Raises as `open_binary` does.
    """
    fs, path = _file_system(pattern)
    return sorted(fs.unstrip_protocol(name) for name in _patiently(pattern, lambda: fs.glob(path)))


def version(url: str) -> tuple[str, int | None]:
    """What changes when a URL's file does, as far as its server tells; and its size in bytes.

    Raises as `open_binary` does.
    """
    if is_http(url):
        with _patiently(url, lambda: _ask(url)) as answer:
            facts: dict[str, Any] = {**_facts(answer), "size": answer.length}
    else:
        fs, path = _file_system(url)
        facts = _patiently(url, lambda: fs.info(path))
    keys = ("ETag", "etag", "md5", "Last-Modified", "LastModified", "last_modified", "mtime")
    found = (str(facts[key]) for key in (*keys, "created") if facts.get(key))
    return next(found, ""), int(facts["size"]) if facts.get("size") is not None else None


class _RemoteFile(io.RawIOBase):
    """A URL's bytes in order; opened when first read, and again after a fault."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._stream: Any = None
        self._position = 0
        self._left: int | None = None  # of a web server's answer, where it told its length
        self._facts: dict[str, str] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move forwards: by reading, or for nothing before the first read."""
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < self._position:
            raise io.UnsupportedOperation(f"{public(self._url)} is only read forwards")
        if self._stream is None:
            self._position = target
        while self._position < target and self.read(min(BUFFER_BYTES, target - self._position)):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = _patiently(self._url, lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            if self._stream is None:
                behind = self._position - self._open()
                while behind and (passed := len(self._read_some(min(BUFFER_BYTES, behind)))):
                    behind -= passed
            return self._read_some(size)
        except Exception:
            self._drop()
            raise

    def _read_some(self, size: int) -> bytes:
        if self._left is None:
            data: bytes = self._stream.read(size)
            return data
        data = self._stream.read1(size)
        self._left -= len(data)
        if not data and self._left > 0:
            raise ConnectionError(f"the connection closed {self._left} bytes before the end")
        return data

    def _open(self) -> int:
        """Open at the position, or before it where the server or file system knows no parts."""
        if not is_http(self._url):
            fs, path = _file_system(self._url)
            self._stream = fs.open(path, "rb")
            return self._stream.seek(self._position) if self._stream.seekable() else 0
        answer = self._stream = _ask(self._url, self._position)
        begin = self._position if answer.status == PART else 0
        self._left = answer.length
        facts = _facts(answer)
        if answer.length is not None:
            facts["size"] = str(begin + answer.length)
        if any(facts[name] != self._facts[name] for name in facts.keys() & self._facts.keys()):
            raise ValueError("the file was changed on the server while it was read")
        self._facts |= facts
        return begin

    def _drop(self) -> None:
        if self._stream is not None:
            with suppress(Exception):
                self._stream.close()
        self._stream = self._left = None


def _ask(url: str, position: int = 0) -> HTTPResponse:
    """A web server's answer; it begins at `position` where its status is PART."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    # Compressed answers have other positions than the file.
    headers = {"Accept-Encoding": "identity", "User-Agent": "lit-mbldm"}
    request = Request(quote(bare, safe=string.punctuation), headers=headers)
    if position:
        request.add_header("Range", f"bytes={position}-")
    if parts.username is not None:  # which go to this host alone
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(user.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    answer: HTTPResponse = urlopen(request, timeout=TIMEOUT)
    return answer


def _facts(answer: HTTPResponse) -> dict[str, str]:
    """What changes when the file does, as far as the server tells."""
    return {
        name: answer.headers[name] for name in ("ETag", "Last-Modified") if name in answer.headers
    }


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


def _patiently(url: str, action: Callable[[], T]) -> T:
    """Do something with a URL, again after each of `PAUSES` where a fault may pass."""
    for pause in (*PAUSES, None):
        try:
            return action()
        except InputError:
            raise
        except Exception as error:  # every file system has its own
            fault, passes = _explained(error, url)
        if not passes:
            raise fault
        if pause is None:
            raise OSError(f"{fault}, {len(PAUSES) + 1} times")
        warnings.warn(f"{fault}; trying again in {pause:g} s.", stacklevel=2)
        time.sleep(pause)
    raise AssertionError


def _explained(error: Exception, url: str) -> tuple[OSError, bool]:
    """The error to raise, without the secrets of the URL, and whether another try may help."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(f"{public(url)} does not exist"), False
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(f"{public(url)}: access is denied"), False
    if isinstance(status, int):
        passes = status >= 500 or status in PASSING
        return OSError(f"{public(url)}: HTTP {status}"), passes
    cause = error.reason if isinstance(error, URLError) else error
    reason = without_secrets(str(cause) or type(cause).__name__, url)
    passes = not isinstance(cause, ValueError | TypeError | IsADirectoryError | InvalidURL)
    return OSError(f"{public(url)}: {reason}"), passes
