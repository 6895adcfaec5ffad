"""Raw images of a folder, of tar archives, of a zip or of an LMDB, one at a time."""

import hashlib
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lit_mbldm.data.prepare.shard_folder import UNFINISHED
from lit_mbldm.data.shards.patterns import Manifests, find_shards
from lit_mbldm.data.shards.tar import Member, read_member, tar_members
from lit_mbldm.data.sources.endings import describe_ignored, ending, is_image
from lit_mbldm.data.sources.folder import FolderSource, add_file
from lit_mbldm.data.sources.images import IMAGE_SUFFIXES, ImageError
from lit_mbldm.data.sources.lsun import DATA_FILE, LmdbSource, ZippedLmdbSource
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage, check_bytes
from lit_mbldm.errors import InputError


def open_source(
    source: str | Path | Sequence[str | Path], scratch: Path | None = None
) -> ImageSource:
    """Open a collection of images.

    Args:
        source: a folder of images (searched recursively) or of tars, a .tar, a list of tars, a .zip
            of images, LSUN's LMDB (a folder with data.mdb) or the zip it is published as.
        scratch: folder where LSUN's LMDB is unpacked from its zip and stays; None unpacks it in a
            temporary folder each time. All else is read where it is.

    Raises:
        InputError: a missing path, a file of another kind or damaged, no image in it, shards that
            are still being written, or images beside tars in one folder.
    """
    if not isinstance(source, str | Path):
        found: ImageSource = TarSource([_existing(path) for path in source])
    else:
        path = _existing(source)
        if path.is_dir():
            found = _open_folder(path)
        elif path.name == DATA_FILE:
            found = LmdbSource(path)
        elif path.suffix.lower() == ".tar":
            found = TarSource([path])
        elif path.suffix.lower() == ".zip":
            found = _open_zip(path, scratch)
        else:
            raise InputError(f"Expected a folder, a .tar or a .zip of images, got the file {path}.")
    if len(found) == 0:
        raise InputError(
            f"Expected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in {found.name}, found none."
            f" {describe_ignored(found.ignored)} Name the folder that holds them."
        )
    return found


class TarSource:
    """The image members of uncompressed tar archives, in the order of the archives.

    What an archive that ends early lacks counts as images whose `read` gives the reason: as many
    as the manifest beside it tells, else one.
    """

    def __init__(self, archives: list[Path], name: str | None = None) -> None:
        self.name = name or ", ".join(str(path) for path in archives)
        self.ignored = Counter[str]()
        self._images = 0
        self._archives = archives
        self._counts = _told_counts(archives)
        digest = hashlib.sha256()
        for path, count in zip(archives, self._counts, strict=True):
            add_file(digest, path.name, path)
            for member in _tar_images(path, count):
                if isinstance(member, ImageError) or is_image(member.name):
                    self._images += 1
                else:
                    self.ignored[ending(member.name)] += 1
        digest.update(f"{self._images}\n".encode())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[RawImage]:
        for path, count in zip(self._archives, self._counts, strict=True):
            for member in _tar_images(path, count):
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
        digest = hashlib.sha256()
        with zipfile.ZipFile(archive) as zipped:
            images = _zipped_images(zipped)
            self._images = len(images)
            others = (i.filename for i in zipped.infolist() if not i.is_dir())
            self.ignored = Counter(ending(name) for name in others if not is_image(name))
        for info in images:
            digest.update(f"{info.filename!r} {info.file_size} {info.CRC}\n".encode())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[RawImage]:
        with zipfile.ZipFile(self._path) as zipped:
            for member in _zipped_images(zipped):
                yield RawImage(member.filename, partial(_read_zip_member, zipped, member))


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise InputError(f"No such file or folder: {path}. Expected a folder or archive of images.")
    return path


def _open_folder(folder: Path) -> ImageSource:
    if (folder / DATA_FILE).is_file():
        return LmdbSource(folder / DATA_FILE)
    images, tars = FolderSource(folder), sorted(folder.glob("*.tar"))
    if tars and len(images):
        raise InputError(
            f"Expected either images or tars of images in {folder}, found {len(images)} images and"
            f" {len(tars)} tars, {next(iter(images)).name} and {tars[0].name} among them. Move one"
            " kind to a folder of its own."
        )
    if len(images) or not (tars or (folder / UNFINISHED).is_dir()):
        return images
    return TarSource([Path(path) for path in find_shards(folder)], str(folder))


def _open_zip(archive: Path, scratch: Path | None) -> ImageSource:
    try:
        with zipfile.ZipFile(archive) as zipped:
            databases = [
                info
                for info in zipped.infolist()
                if Path(info.filename).name == DATA_FILE and not info.is_dir()
            ]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"Expected a zip of images, {archive} cannot be read: {error}.") from error
    if len(databases) > 1:
        names = ", ".join(info.filename for info in databases)
        raise InputError(f"{archive} holds several LMDBs, {names}. Unpack it and name one folder.")
    return ZippedLmdbSource(archive, databases[0], scratch) if databases else ZipSource(archive)


def _zipped_images(zipped: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    images = (i for i in zipped.infolist() if is_image(i.filename) and not i.is_dir())
    return sorted(images, key=lambda info: info.filename)


def _told_counts(archives: list[Path]) -> list[int]:
    """Images that the manifest beside each archive tells of, 0 where there is none."""
    manifests = Manifests()
    found = [manifests.of_shard(str(path)) for path in archives]
    return [told[1].count if told and told[0].kind == "images" else 0 for told in found]


def _tar_images(path: Path, count: int) -> Iterator[Member | ImageError]:
    """The files of a tar, and at last an error for each of `count` images not among them."""
    error: ImageError | None = None
    try:
        with path.open("rb") as stream:
            for member in tar_members(stream):
                count -= is_image(member.name)
                yield member
    except (tarfile.TarError, OSError) as damage:
        error = ImageError(str(damage))
        count = max(count, 1)
    for _ in range(count):
        yield error or ImageError("fewer images than its manifest tells")


def _fail(error: ImageError) -> bytes:
    raise error


def _read_tar_member(path: Path, member: Member) -> bytes:
    with path.open("rb") as stream:
        stream.seek(member.offset)
        try:
            return read_member(stream, member)
        except tarfile.ReadError as error:
            raise ImageError(str(error)) from error


def _read_zip_member(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    check_bytes(member.file_size)
    try:
        return zipped.read(member)
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum
        raise ImageError(f"unreadable in the zip ({error})") from error
