"""Raw images of a folder, of tar archives or of a zip, one at a time; nothing is extracted."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from lit_mbldm.data.images import IMAGE_SUFFIXES, ImageError
from lit_mbldm.data.tar_reader import tar_members
from lit_mbldm.errors import InputError

MAX_BYTES = 1 << 29


class RawImage(NamedTuple):
    """An undecoded image: its name, and a function that reads its bytes.

    `read` raises ImageError or OSError where the bytes cannot be had.
    """

    name: str
    read: Callable[[], bytes]


class ImageSource(Protocol):
    """A collection of raw images in a fixed order.

    Attributes:
        name: where they come from, for the manifest.
        ignored: number of files passed over because they are no images.
    """

    name: str
    ignored: int

    def __len__(self) -> int:
        """Number of images."""

    def __iter__(self) -> Iterator[RawImage]:
        """The images, the same order each time."""


def open_source(source: str | Path | Sequence[str | Path]) -> ImageSource:
    """Open a folder of images (searched recursively) or of tars, a .tar, a list of tars, a .zip.

    Raises:
        InputError: a missing path, a file of another kind, or no image in it.
    """
    if not isinstance(source, str | Path):
        found: ImageSource = TarSource([_existing(path) for path in source])
    else:
        path = _existing(source)
        if path.is_dir():
            found = _open_folder(path)
        elif path.suffix.lower() == ".tar":
            found = TarSource([path])
        elif path.suffix.lower() == ".zip":
            found = ZipSource(path)
        else:
            raise InputError(f"Expected a folder, a .tar or a .zip of images, got the file {path}.")
    if len(found) == 0:
        raise InputError(
            f"Expected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in {found.name}, found none"
            f" ({found.ignored} other files). Name the folder that holds them."
        )
    return found


class FolderSource:
    """The image files below a folder, sorted by relative path."""

    def __init__(self, folder: Path) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.name = str(folder)
        self._folder = folder
        self._names = sorted(p.relative_to(folder).as_posix() for p in files if is_image(p.name))
        self.ignored = len(files) - len(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[RawImage]:
        for name in self._names:
            yield RawImage(name, partial(_read_file, self._folder / name))


class TarSource:
    """The image members of uncompressed tar archives, in the order of the archives.

    An archive that ends early counts as one more image, whose `read` gives the reason.
    """

    def __init__(self, archives: list[Path]) -> None:
        self.name = ", ".join(str(path) for path in archives)
        self.ignored = 0
        self._images = 0
        self._archives = archives
        for path in archives:
            for member in tar_members(path):
                wanted = isinstance(member, ImageError) or is_image(member.name)
                self._images += wanted
                self.ignored += not wanted

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[RawImage]:
        for path in self._archives:
            for member in tar_members(path):
                if isinstance(member, ImageError):
                    yield RawImage(path.name, partial(_fail, member))
                elif is_image(member.name):
                    read = partial(_read_tar_member, path, member)
                    yield RawImage(f"{path.name}/{member.name}", read)


class ZipSource:
    """The image members of a zip, sorted by name."""

    def __init__(self, archive: Path) -> None:
        self.name = str(archive)
        self._path = archive
        try:
            with zipfile.ZipFile(archive) as zipped:
                members = [info for info in zipped.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"Expected a zip of images, {archive} cannot be read: {error}."
            ) from error
        images = (info for info in members if is_image(info.filename))
        self._members = sorted(images, key=lambda info: info.filename)
        self.ignored = len(members) - len(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[RawImage]:
        with zipfile.ZipFile(self._path) as zipped:
            for member in self._members:
                yield RawImage(member.filename, partial(_read_zip_member, zipped, member))


def is_image(name: str) -> bool:
    """Whether a file or member of this name is taken for an image, by its suffix."""
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise InputError(f"No such file or folder: {path}. Expected a folder or archive of images.")
    return path


def _open_folder(folder: Path) -> ImageSource:
    images = FolderSource(folder)
    archives = sorted(folder.glob("*.tar"))
    return TarSource(archives) if archives and not len(images) else images


def _fail(error: ImageError) -> bytes:
    raise error


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes, more than the {MAX_BYTES} allowed")


def _read_file(path: Path) -> bytes:
    _check_bytes(path.stat().st_size)
    return path.read_bytes()


def _read_tar_member(path: Path, member: tarfile.TarInfo) -> bytes:
    _check_bytes(member.size)
    with path.open("rb") as stream:
        stream.seek(member.offset_data)
        data = stream.read(member.size)
    if len(data) < member.size:
        raise ImageError("cut off by the end of the tar archive")
    return data


def _read_zip_member(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    _check_bytes(member.file_size)
    try:
        return zipped.read(member)
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum
        raise ImageError(f"unreadable in the zip ({error})") from error
