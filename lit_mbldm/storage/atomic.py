"""Files that appear whole or not at all, and places where none can."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_mbldm.errors import InputError


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
    """See that files can be written into a folder that exists or is still to be made.

    Raises:
        InputError: they cannot.
    """
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise InputError(
            f"Nothing can be written into {existing} ({error.strerror}). Choose another place, or"
            " change its permissions."
        ) from error


def write_synced(path: Path, data: bytes) -> None:
    """Write a file, in folders that are made, and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
