"""Fetching one large file from the web: it goes on where it stopped, and is checked at the end."""

import hashlib
import os
import shutil
from io import BufferedReader
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import check_room, full_disk_explained
from lit_mbldm.storage.urls import open_binary, public, version

BLOCK_BYTES = 1 << 20


def download(url: str, path: Path, sha256: str, size: int | None = None) -> None:
    """Fetch a file of this sha256 (hex) and size in bytes, unless it is there already.

    Beside `path` the folder `<name>.part` holds what has come so far; a later call goes on with it
    where the server can. The secrets that `url` may hold are in no message.

    Raises:
        InputError: another file is at `path`, the one that came is not the one expected, it does
            not fit on the disk, or another process is at it.
        OSError: the server does not have it (FileNotFoundError) or does not give it
            (PermissionError), fails again and again, or it cannot be written.
    """
    if path.exists():
        _check(path, sha256, f"{path} is another file; remove or rename it")
        return
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    data = part / "data"
    try:
        with FileLock(part / "lock", timeout=0), full_disk_explained(part):
            _fetch(url, data, size)
            try:
                _check(data, sha256, f"What {public(url)} sent is not the file and was removed")
            except InputError:
                data.unlink()
                raise
            os.replace(data, path)
            shutil.rmtree(part)
    except Timeout:
        raise InputError(
            f"Another process is fetching {path}. Wait for it, or choose another folder."
        ) from None


def _fetch(url: str, data: Path, size: int | None) -> None:
    """Append to `data` what it lacks."""
    total = version(url)[1]
    if size and total and size != total:
        raise InputError(f"{public(url)} has {total} bytes, expected {size}: it is another file.")
    have = data.stat().st_size if data.exists() else 0
    if total is not None and have >= total:
        return
    check_room(data.parent, (total or have) - have, f"The rest of {public(url)}")
    progress = tqdm(total=total, initial=have, desc="download", unit="B", unit_scale=True)
    with open_binary(url) as stream, data.open("ab") as out, progress:
        stream.seek(have)
        while block := _read(stream):
            out.write(block)
            progress.update(len(block))


def _read(stream: BufferedReader) -> bytes:
    try:
        return stream.read1(BLOCK_BYTES)
    except OSError as error:
        raise OSError(f"{error}. What has come stays: run the same command again later.") from error


def _check(path: Path, sha256: str, otherwise: str) -> None:
    """Raise InputError, beginning with `otherwise`, where a file has another sha256."""
    digest = hashlib.sha256()
    with (
        path.open("rb") as stream,
        tqdm.wrapattr(stream, "read", path.stat().st_size, desc="sha256") as counted,
    ):
        while block := counted.read(BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise InputError(f"{otherwise}: its sha256 is {digest.hexdigest()}, expected {sha256}.")
