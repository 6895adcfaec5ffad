"""Raw images of a folder, of tar archives, of a zip or of an LMDB, one at a time."""

import os
import tarfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lit_mbldm.data.images import IMAGE_SUFFIXES, ImageError, check_bytes
from lit_mbldm.data.shards.manifest import UNFINISHED
from lit_mbldm.data.shards.patterns import Manifests, find_shards
from lit_mbldm.data.shards.tar import Member, read_member, tar_members
from lit_mbldm.data.sources.lsun import DATA_FILE, open_lmdb, open_zipped_lmdb
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage, is_image, listed
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
    paths = [Path(path) for path in ([source] if isinstance(source, str | Path) else source)]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"No such file or folder: {path}. Expected a folder or archive of images."
            )
    path, ending = paths[0], paths[0].suffix.lower()
    if not isinstance(source, str | Path) or (ending == ".tar" and path.is_file()):
        found = _tar_images(paths, ", ".join(map(str, paths)))
    elif path.is_dir():
        found = _open_folder(path)
    elif path.name == DATA_FILE:
        found = open_lmdb(path)
    elif ending == ".zip":
        found = _open_zip(path, scratch)
    else:
        raise InputError(f"Expected a folder, a .tar or a .zip of images, got the file {path}.")
    if len(found) == 0:
        raise InputError(
            f"Expected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in {found.name}, found none."
            f" {found.ignored_files()} Name the folder that holds them."
        )
    return found


def _open_folder(folder: Path) -> ImageSource:
    if (folder / DATA_FILE).is_file():
        return open_lmdb(folder / DATA_FILE)
    images, tars = _folder_images(folder), sorted(folder.glob("*.tar"))
    if tars and len(images):
        raise InputError(
            f"Expected either images or tars of images in {folder}, found {len(images)} images and"
            f" {len(tars)} tars, {next(iter(images)).name} and {tars[0].name} among them."
        )
    if len(images) or not (tars or (folder / UNFINISHED).is_dir()):
        return images
    return _tar_images([Path(path) for path in find_shards(folder)], str(folder))


def _folder_images(folder: Path) -> ImageSource:
    """The images below a folder and those it links to, by path; no folder is read twice."""
    files: list[str] = []
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
        files += [os.path.normpath(os.path.join(below, name)) for name in names]
    images = [name for name in sorted(files) if is_image(name)]
    return listed(
        str(folder),
        [RawImage(name, partial(_read_file, folder / name)) for name in images],
        (name for name in files if not is_image(name)),
        (_facts(name, folder / name) for name in images),
    )


def _read_file(path: Path) -> bytes:
    if not path.is_file() and path.exists():
        raise ImageError("not a regular file")
    check_bytes(path.stat().st_size)
    return path.read_bytes()


def _facts(name: str, path: Path) -> str:
    """What tells a file from another one."""
    try:
        status = path.stat()
    except OSError:  # reading it gives the reason
        return f"{name!r} unreadable"
    return f"{name!r} {status.st_size} {status.st_mtime_ns}"


def _tar_images(archives: list[Path], name: str) -> ImageSource:
    """The images in uncompressed tars; those that one lacks by its manifest cannot be read."""
    manifests = Manifests()
    images: list[RawImage] = []
    others: list[str] = []
    for path in archives:
        told = manifests.of_shard(str(path))
        lost = told[1].count if told and told[0].kind == "images" else 0
        reason = "fewer images than its manifest tells"
        try:
            with path.open("rb") as stream:
                for member in tar_members(stream):
                    if is_image(member.name):
                        lost -= 1
                        read = partial(_read_member, path, member)
                        images.append(RawImage(f"{path.name}/{member.name}", read))
                    else:
                        others.append(member.name)
        except (tarfile.TarError, OSError) as error:
            lost, reason = max(lost, 1), str(error)
        images += [RawImage(path.name, partial(_lost, reason))] * lost
    facts = [*(_facts(path.name, path) for path in archives), str(len(images))]
    return listed(name, images, others, facts)


def _lost(reason: str) -> bytes:
    raise ImageError(reason)


def _read_member(path: Path, member: Member) -> bytes:
    with path.open("rb") as stream:
        stream.seek(member.offset)
        try:
            return read_member(stream, member)
        except tarfile.ReadError as error:
            raise ImageError(str(error)) from error


def _open_zip(archive: Path, scratch: Path | None) -> ImageSource:
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
    images = [info for info in files if is_image(info.filename)]
    return listed(
        str(archive),
        [RawImage(info.filename, partial(_read_zipped, zipped, info)) for info in images],
        (info.filename for info in files if not is_image(info.filename)),
        (f"{info.filename!r} {info.file_size} {info.CRC}" for info in images),
    )


def _read_zipped(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    check_bytes(member.file_size)
    try:
        return zipped.read(member)
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum
        raise ImageError(f"unreadable in the zip ({error})") from error
