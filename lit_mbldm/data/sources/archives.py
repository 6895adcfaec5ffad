"""Raw images of a folder, of tar archives, of a zip or of an LMDB, one at a time."""

import os
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lit_mbldm.data.shards.manifest import UNFINISHED
from lit_mbldm.data.shards.patterns import find_shards
from lit_mbldm.data.sources.labels import label_by_folder
from lit_mbldm.data.sources.lsun import DATA_FILE, open_lmdb, open_zipped_lmdb
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage, file_facts, is_image, listed
from lit_mbldm.data.sources.tars import tar_images
from lit_mbldm.errors import InputError
from lit_mbldm.images import IMAGE_SUFFIXES, ImageError, check_bytes


def open_source(
    source: str | Path | Sequence[str | Path], scratch: Path | None = None, labels: bool = False
) -> ImageSource:
    """Open a collection of images.

    Args:
        source: a folder of images (searched recursively) or of tars, a .tar, a list of tars, a .zip
            of images, LSUN's LMDB (a folder with data.mdb) or the zip it is published as.
        scratch: folder where LSUN's LMDB is unpacked from its zip and stays; None unpacks it in a
            temporary folder each time. All else is read where it is.
        labels: label images by `.cls` or `.json` members of tars, or else by class folders: the
            topmost folders that tell images apart, if all images lie in such ones.

    Raises:
        InputError: a missing path, a file of another kind or damaged, no image in it, shards that
            are still being written, images beside tars in one folder, a class folder without an
            image, or tars of which only some samples have labels.
    """
    paths = [Path(path) for path in ([source] if isinstance(source, str | Path) else source)]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"No such file or folder: {path}. Expected a folder or archive of images."
            )
    path, ending = paths[0], paths[0].suffix.lower()
    if not isinstance(source, str | Path) or (ending == ".tar" and path.is_file()):
        found = tar_images(paths, ", ".join(map(str, paths)), labels)
    elif path.is_dir():
        found = _open_folder(path, labels)
    elif path.name == DATA_FILE:
        found = open_lmdb(path)
    elif ending == ".zip":
        found = _open_zip(path, scratch, labels)
    else:
        raise InputError(f"Expected a folder, a .tar or a .zip of images, got the file {path}.")
    if len(found) == 0:
        raise InputError(
            f"Expected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in {found.name}, found none."
            f" {found.ignored_files()} Name the folder that holds them."
        )
    return found


def _open_folder(folder: Path, labels: bool) -> ImageSource:
    if (folder / DATA_FILE).is_file():
        return open_lmdb(folder / DATA_FILE)
    images, tars = _folder_images(folder, labels), sorted(folder.glob("*.tar"))
    if tars and len(images):
        raise InputError(
            f"Expected either images or tars of images in {folder}, found {len(images)} images and"
            f" {len(tars)} tars, {next(iter(images)).name} and {tars[0].name} among them."
        )
    if len(images) or not (tars or (folder / UNFINISHED).is_dir()):
        return images
    return tar_images([Path(path) for path in find_shards(folder)], str(folder), labels)


def _folder_images(folder: Path, labels: bool) -> ImageSource:
    """The images below a folder and those it links to, by path; no folder is read twice."""
    files: list[str] = []
    places: list[str] = []
    read: set[str] = set()

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(place)) in read:
            folders.clear()
            continue
        read.add(real)
        below = os.path.relpath(place, folder)
        places.append(os.path.join(below, ""))
        files += [os.path.normpath(os.path.join(below, name)) for name in names]
    names = [name for name in sorted(files) if is_image(name)]
    images = [RawImage(name, partial(_read_file, folder / name)) for name in names]
    others = [name for name in files if not is_image(name)]
    facts = (file_facts(name, folder / name) for name in names)
    labelled = label_by_folder(images, names, [*others, *places], labels)
    return listed(str(folder), *labelled, others, facts)


def _read_file(path: Path) -> bytes:
    if not path.is_file() and path.exists():
        raise ImageError("not a regular file")
    check_bytes(path.stat().st_size)
    return path.read_bytes()


def _open_zip(archive: Path, scratch: Path | None, labels: bool) -> ImageSource:
    try:
        zipped = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"Expected a zip of images, {archive} cannot be read: {error}.") from error
    files = sorted((i for i in zipped.infolist() if not i.is_dir()), key=lambda i: i.filename)
    databases = [info for info in files if Path(info.filename).name == DATA_FILE]
    if len(databases) > 1:
        names = ", ".join(info.filename for info in databases)
        raise InputError(f"{archive} holds several LMDBs, {names}. Unpack it and name one folder.")
    if databases:
        return open_zipped_lmdb(archive, databases[0], scratch)
    found = [info for info in files if is_image(info.filename)]
    images = [RawImage(info.filename, partial(_read_zipped, zipped, info)) for info in found]
    others = [info.filename for info in files if not is_image(info.filename)]
    folders = [info.filename for info in zipped.infolist() if info.is_dir()]
    facts = (f"{info.filename!r} {info.file_size} {info.CRC}" for info in found)
    paths = [image.name for image in images]
    labelled = label_by_folder(images, paths, [*others, *folders], labels)
    return listed(str(archive), *labelled, others, facts)


def _read_zipped(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    check_bytes(member.file_size)
    try:
        return zipped.read(member)
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum
        raise ImageError(f"unreadable in the zip ({error})") from error
