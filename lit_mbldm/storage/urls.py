"""Local paths and URLs: what their text tells, and reading them through faults that pass."""

import base64
import io
import math
import re
import string
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from lit_mbldm.errors import InputError

BUFFER_BYTES = 1 << 18
TIMEOUT = 30.0  # in seconds, of silence
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # in seconds, between attempts

T = TypeVar("T")

# A worker that is forked must not close the connections it inherits: they are its parent's.
_kept: set[Any] = set()


def is_url(name: str) -> bool:
    """Whether it is a URL and no local path."""
    return "://" in name


def is_http(url: str) -> bool:
    """Whether a web server is asked for it."""
    return url.lower().startswith(("http://", "https://"))


def public(url: str) -> str:
    """The URL without user, password and query, fit for a message; a local path as it is."""
    query = r"[?#].*" if is_http(url) else r"\?\S*=.*"
    return re.sub(query, "", re.sub(r"(?<=://)[^/]*@", "", url)) if is_url(url) else url


def base_name(url: str) -> str:
    """The last part of the path."""
    name = PurePosixPath(public(url)).name if is_url(url) else Path(url).name
    return unquote(name) if is_http(url) else name


def folder_of(url: str) -> str:
    """The folder a file lies in; a query stays."""
    if is_http(url):
        parts = urlsplit(url)
        return parts._replace(path=parts.path.rpartition("/")[0]).geturl()
    return url.rpartition("/")[0] if is_url(url) else str(Path(url).parent)


def in_folder(folder: str, name: str) -> str:
    """A file of a folder; a query stays."""
    if is_http(folder):
        parts = urlsplit(folder)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def open_binary(url: str | Path) -> io.BufferedReader:
    """Open a local path or URL to be read from its beginning to its end.

    A URL is opened at its first read, and seeks only forwards. After a fault that may pass it is
    tried again from the same position, after each of `PAUSES`. No message names its secrets.

    Raises:
        InputError: a protocol that is unknown or lacks its package.
        OSError: it cannot be read, or changes meanwhile; FileNotFoundError or PermissionError where
            it does not exist or is denied.
    """
    if is_url(str(url)):
        return io.BufferedReader(_RemoteFile(str(url)), BUFFER_BYTES)
    return open(url, "rb")


def listing(pattern: str) -> list[str]:
    """URLs that match a glob pattern, sorted; not for web servers. Raises as `open_binary`."""
    fs, path = _file_system(pattern)
    return sorted(fs.unstrip_protocol(name) for name in _patiently(pattern, lambda: fs.glob(path)))


def version(url: str) -> tuple[str, int | None]:
    """What changes when a URL's file does, if its server tells, and its size in bytes."""
    if is_http(url):
        with _patiently(url, lambda: _ask(url)) as answer:
            facts: dict[str, Any] = _facts(answer, 0)
    else:
        fs, path = _file_system(url)
        facts = _patiently(url, lambda: fs.info(path))
    keys = ("ETag", "etag", "md5", "Last-Modified", "LastModified", "last_modified", "mtime")
    found = (str(facts[key]) for key in (*keys, "created") if facts.get(key))
    return next(found, ""), facts.get("size")


class _RemoteFile(io.RawIOBase):
    """A URL's bytes in order; opened when first read, and again after a fault."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._stream: Any = None
        self._position = 0
        self._left = math.inf  # of a web server's answer, where it told its length
        self._facts: dict[str, Any] = {}

    def readable(self) -> bool:
        return True

    seekable = readable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
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
                while behind:
                    behind -= len(self._read_some(min(BUFFER_BYTES, behind))) or behind
            return self._read_some(size)
        except Exception:
            self._drop()
            raise

    def _read_some(self, size: int) -> bytes:
        data: bytes = getattr(self._stream, "read1", self._stream.read)(size)
        self._left -= len(data)
        if not data and 0 < self._left < math.inf:
            raise ConnectionError(f"the connection closed {self._left} bytes before the end")
        return data

    def _open(self) -> int:
        """Open at the position, or before it where the server or file system knows no parts."""
        if not is_http(self._url):
            fs, path = _file_system(self._url)
            self._stream = fs.open(path, "rb")
            return self._stream.seek(self._position) if self._stream.seekable() else 0
        answer = self._stream = _ask(self._url, self._position)
        begin = self._position if answer.status == 206 else 0
        self._left, facts = answer.length or math.inf, _facts(answer, begin)
        if any(self._facts.get(name, fact) != fact for name, fact in facts.items()):
            raise ValueError("the file was changed on the server while it was read")
        self._facts |= facts
        return begin

    def _drop(self) -> None:
        with suppress(Exception):
            self._stream.close()
        self._stream, self._left = None, math.inf


def _ask(url: str, position: int = 0) -> HTTPResponse:
    """A web server's answer, through proxies; it begins at `position` where its status is 206."""
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


def _facts(answer: HTTPResponse, begin: int) -> dict[str, Any]:
    """What changes when the file does, as far as the server tells; `begin` is where it begins."""
    facts = {name: answer.headers[name] for name in ("ETag", "Last-Modified")}
    facts["size"] = None if answer.length is None else begin + answer.length
    return {name: fact for name, fact in facts.items() if fact is not None}


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # `doctor` runs without packages

    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"Expected a URL that can be opened, got {public(url)}: {error}. Install the package"
            " that opens it, or copy the files to a local folder."
        ) from None
    _kept.add(fs)
    return fs, path


def _patiently(url: str, action: Callable[[], T]) -> T:
    """Do something with a URL, again after each of `PAUSES` where a fault may pass."""
    pauses = iter(PAUSES)
    while True:
        try:
            return action()
        except InputError:
            raise
        except Exception as error:  # every file system has its own
            fault, passes = _explained(error, url)
        if not passes:
            raise fault
        if (pause := next(pauses, None)) is None:
            raise OSError(f"{fault}, {len(PAUSES) + 1} times")
        warnings.warn(f"{fault}; trying again in {pause:g} s.", stacklevel=2)
        time.sleep(pause)


def _explained(error: Exception, url: str) -> tuple[OSError, bool]:
    """The error to raise, without the secrets of the URL, and whether another try may help."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(f"{public(url)} does not exist"), False
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(f"{public(url)}: access is denied"), False
    if isinstance(status, int):
        return OSError(f"{public(url)}: HTTP {status}"), status >= 500 or status in (408, 425, 429)
    cause = error.reason if isinstance(error, URLError) else error
    reason = str(cause) or type(cause).__name__
    address, _, query = url.partition("?")
    for secret in (query, address.partition("://")[2].rpartition("@")[0]):
        reason = reason.replace(secret, "…") if secret else reason
    passes = not isinstance(cause, ValueError | TypeError | IsADirectoryError | InvalidURL)
    return OSError(f"{public(url)}: {reason}"), passes
