"""Files that appear whole or not at all, and places where there is no room or no permission."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_mbldm.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Say, where writing `path` fails for want of room, that the same command can go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}. What is finished stays; make room and run the same command again",
            str(path),
        ) from error


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise InputError where fewer than `needed` bytes are free; it begins with `what`."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise InputError(
            f"{what} needs {needed:,} bytes in {folder}, {free:,} are free. Make room, or choose a"
            " folder on another disk."
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it at the end, removed on an error.

    What is written is on the disk before it gets its name.
    """
    # not the number of the process: those of two nodes, or of two containers, may be equal
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise InputError where no file can be written into a folder, which need not exist yet."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise InputError(
            f"Nothing can be written into {existing} ({error.strerror}). Choose another place, or"
            " change its permissions."
        ) from error


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file as `replacing` does, in folders that are made; text as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
