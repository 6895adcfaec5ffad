"""Fetching one large file over HTTP: it goes on where it stopped, and is checked at the end."""

import http.client
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained, replacing
from lit_mbldm.storage.checksum import Checksum
from lit_mbldm.storage.http_stream import build_request
from lit_mbldm.storage.urls import is_http, public

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0
TRANSIENT = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
}


class RefusedError(InputError):
    """The server does not have the file, or does not give it."""


@dataclass(frozen=True)
class _Version:
    """Which file the server has: its size, and a tag or date that changes with its contents."""

    size: int
    validator: str | None


def download(url: str, path: Path, checksum: Checksum) -> None:
    """Fetch a file, unless it is there already.

    Beside `path` the folder `<name>.part` holds what has come so far; a later call goes on with it
    where the server can, and the server's file is the same.

    Args:
        url: http or https; the secrets it may hold are in no message.
        path: of the file; its folder is made where it is missing.
        checksum: of the file.

    Raises:
        RefusedError: the server does not have it, or does not give it.
        InputError: another file is at `path`, the one that came is not the one expected, it does
            not fit on the disk, the server fails again and again, or another process is at it.
        OSError: it cannot be written.
    """
    if path.exists():
        checksum.check(path, f"{path} is another file; remove or rename it")
        return
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part / "lock", timeout=0), full_disk_explained(part):
            fetched = _Download(url, part, checksum.size)
            fetched.run()
            _accept(fetched.data, path, checksum, url)
    except Timeout:
        raise InputError(
            f"Another process is fetching {path}. Wait for it, or choose another folder."
        ) from None


class _Download:
    """The way of a file into `part/data`, over any number of connections."""

    def __init__(self, url: str, part: Path, size: int | None) -> None:
        self._url = url
        self._name = public(url)
        self.data = part / "data"
        self._note = part / "version.json"
        self._size = size

    def run(self) -> None:
        failures, longest = 0, 0
        while not self._complete():
            try:
                self._fetch()
            except _InterruptedError as error:
                if error.start_afresh:
                    self._note.unlink(missing_ok=True)
                have = self._have()
                failures = 1 if have > longest else failures + 1
                longest = max(have, longest)
                if failures == ATTEMPTS:
                    raise InputError(
                        f"{self._name} failed {ATTEMPTS} times in a row ({error}). The {have:,}"
                        " bytes that came stay: run the same command again later."
                    ) from error
                pause = FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
                tqdm.write(f"{error}; trying again in {pause:g} s", file=sys.stderr)
                time.sleep(pause)

    def _have(self) -> int:
        return self.data.stat().st_size if self.data.exists() else 0

    def _complete(self) -> bool:
        return self._note.exists() and self._have() == self._noted().size

    def _noted(self) -> _Version:
        return _Version(**json.loads(self._note.read_text()))

    def _fetch(self) -> None:
        """Ask for what is missing, and take what comes."""
        known = self._noted() if self._note.exists() and self._have() else None
        with _asked(self._url, _range_from(self._have(), known) if known else {}) as response:
            if known and response.status == HTTPStatus.PARTIAL_CONTENT:
                self._check_range(response)
            else:
                self._begin(known := _version(response))
            self._check_room(known)
            self._append(response, known)

    def _begin(self, version: _Version) -> None:
        if self._size not in (None, version.size):
            raise InputError(
                f"{self._name} has {version.size} bytes, expected {self._size}: it is another file."
            )
        self.data.unlink(missing_ok=True)
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(asdict(version)))

    def _check_range(self, response: http.client.HTTPResponse) -> None:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {self._have()}-"):
            raise _InterruptedError("another part came than was asked for", start_afresh=True)

    def _check_room(self, version: _Version) -> None:
        needed, free = version.size - self._have(), shutil.disk_usage(self.data.parent).free
        if free < needed:
            raise InputError(
                f"{self._name} needs {needed:,} more bytes in {self.data.parent},"
                f" {free:,} are free. Make room, or choose a folder on another disk."
            )

    def _append(self, response: http.client.HTTPResponse, version: _Version) -> None:
        size, have = version.size, self._have()
        progress = tqdm(total=size, initial=have, desc="download", unit="B", unit_scale=True)
        with self.data.open("ab") as out, progress:
            while block := _read_block(response, size - have):
                out.write(block)
                progress.update(len(block))
                have += len(block)
        if have < size:
            raise _InterruptedError("the connection was closed too early")


class _InterruptedError(Exception):
    """A failure that may pass; perhaps only without what has come so far."""

    def __init__(self, message: str, *, start_afresh: bool = False) -> None:
        super().__init__(message)
        self.start_afresh = start_afresh


@contextmanager
def _asked(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    name = public(url)
    if not is_http(url):
        raise InputError(f"Expected an address that begins with http:// or https://, got {name!r}.")
    try:
        request = build_request(url)
        for header in headers.items():
            request.add_header(*header)
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        reason = f"{name} answers {error.code} {error.reason}"
        if error.code in TRANSIENT or error.code >= 500:
            afresh = error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            raise _InterruptedError(reason, start_afresh=afresh) from error
        raise RefusedError(f"{reason}.") from error
    except (ValueError, http.client.InvalidURL):  # what they say may hold secrets
        raise InputError(f"Expected an address on the web, got {name!r}.") from None
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(f"{name} cannot be reached ({error})") from error
    with response:
        yield response


def _read_block(response: http.client.HTTPResponse, limit: int) -> bytes:
    try:
        return response.read1(min(limit, BLOCK_BYTES)) if limit else b""
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(f"the connection broke ({error})") from error


def _version(response: http.client.HTTPResponse) -> _Version:
    size = response.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise InputError(
            f"{public(response.url)} does not say how many bytes it has (Content-Length)."
        )
    entity = response.headers.get("ETag", "")
    strong = entity if not entity.startswith("W/") else ""
    return _Version(int(size), strong or response.headers.get("Last-Modified"))


def _range_from(start: int, version: _Version) -> dict[str, str]:
    """Ask for the rest where the file is still the same, else for all of it."""
    condition = {"If-Range": version.validator} if version.validator else {}
    return {"Range": f"bytes={start}-", **condition}


def _accept(data: Path, path: Path, checksum: Checksum, url: str) -> None:
    try:
        checksum.check(data, f"What {public(url)} sent is not the expected file and was removed")
    except InputError:
        shutil.rmtree(data.parent)
        raise
    with data.open("rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(data, path)
    shutil.rmtree(data.parent)
