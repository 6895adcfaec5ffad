"""Saying what to do when there is no room left to write."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FullDiskError(OSError):
    """There is no room to write a file; the message says that the same command can go on."""


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Raise FullDiskError where writing `path` fails for want of room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or isinstance(error, FullDiskError):
            raise
        raise FullDiskError(
            error.errno,
            f"{error.strerror}. What is finished stays; make room and run the same command again",
            str(path),
        ) from error
