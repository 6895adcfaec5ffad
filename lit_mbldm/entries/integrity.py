"""Files that are what they were when they were published."""

import hashlib
from pathlib import Path

from lit_mbldm.errors import InputError


class DamagedError(InputError):
    """A file of an entry is missing, or is not the one that was published.

    Attributes:
        path: of the file.
        reason: how that shows.
    """

    def __init__(
        self, path: Path, reason: str, remedy: str = "Fetch or write the entry again."
    ) -> None:
        super().__init__(f"{path} is damaged: {reason}. {remedy}")
        self.path = path
        self.reason = reason


def read_whole(path: Path, max_bytes: int | None = None) -> bytes:
    """Read a file.

    Raises:
        DamagedError: it cannot be read, is no file, or has more bytes than it may.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or device might never end
            raise DamagedError(path, "it is no regular file")
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise DamagedError(path, f"it has more than {max_bytes:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(path, f"it cannot be read ({error.strerror})") from error


def read_checked(path: Path, sha256: str, max_bytes: int | None = None) -> bytes:
    """Read a file whose sha256 (hex) is known.

    Raises:
        DamagedError: it cannot be read, has more bytes than it may, or is another.
    """
    data = read_whole(path, max_bytes)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DamagedError(path, f"its sha256 is {found}, expected {sha256}")
    return data
