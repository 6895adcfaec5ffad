"""The image files below a folder."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lit_mbldm.data.sources.endings import ending, is_image
from lit_mbldm.data.sources.raw_image import RawImage, changed, check_bytes


class FolderSource:
    """The image files below a folder, sorted by relative path.

    Links to folders are followed, but no folder is read twice.

    Raises:
        InputError: on reading, where the files are no longer those that were there at first.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.ignored = Counter[str]()
        self._folder = folder
        self._images = 0
        digest = hashlib.sha256()
        for name in _files(folder):
            if is_image(name):
                self._images += 1
                add_file(digest, name, folder / name)
            else:
                self.ignored[ending(name)] += 1
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[RawImage]:
        digest = hashlib.sha256()
        for name in filter(is_image, _files(self._folder)):
            path = self._folder / name
            add_file(digest, name, path)
            yield RawImage(name, partial(_read_file, path))
        if digest.hexdigest() != self.identity:
            raise changed(self)


def add_file(digest: "hashlib._Hash", name: str, path: Path) -> None:
    """Add to the digest what tells a file from another one."""
    try:
        stat = path.stat()
        facts = f"{stat.st_size} {stat.st_mtime_ns}"
    except OSError:  # reading it gives the reason
        facts = "unreadable"
    digest.update(f"{name!r} {facts}\n".encode())


def _files(folder: Path, below: str = "", read: set[Path] | None = None) -> Iterator[str]:
    """Relative paths of the files below a folder, sorted; the names of one folder in memory.

    Links to folders are followed; folders in `read` are left out, and those that are read join it.
    """
    read = set() if read is None else read
    if (place := (folder / below).resolve()) in read:
        return
    read.add(place)
    with os.scandir(folder / below) as entries:
        names = sorted(filter(None, map(_listed, entries)))
    for name in names:
        if name.endswith("/"):
            yield from _files(folder, below + name, read)
        else:
            yield below + name


def _listed(entry: "os.DirEntry[str]") -> str:
    """A file's name, a folder's with a slash; a link that leads nowhere counts as a file."""
    try:
        if entry.is_dir():
            return f"{entry.name}/"
        return entry.name if entry.is_file() or not os.path.exists(entry.path) else ""
    except OSError:
        return entry.name


def _read_file(path: Path) -> bytes:
    check_bytes(path.stat().st_size)
    return path.read_bytes()
