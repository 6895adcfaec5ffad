"""Caches, their sizes, and the room that is left."""

import os
import shutil
import tempfile
from pathlib import Path

from lit_mbldm.doctor.missing import named_in
from lit_mbldm.doctor.section import Problem, Section, gigabytes
from lit_mbldm.doctor.torch_findings import TorchFindings

_LEAST_FREE = 1e9  # bytes
# of files and folders beside the repositories, which hurt nobody
_STRAY = ("Repo path is not", "Repo type must be")
_SETTINGS = {
    "Hub cache": "HF_HOME",
    "Xet cache": "HF_XET_CACHE",
    "Reference features": "XDG_CACHE_HOME",
    "FID weights": "TORCH_HOME",
    "Temporary files": "TMPDIR",
}


def examine_disk(findings: TorchFindings) -> Section:
    """The caches' places and sizes, whether they can be written, and free space."""
    section = Section()
    try:
        hub = _hub_cache(section)
        _xet_cache(section)
    except ImportError as reason:
        hub = None
        what = f"The Hub cache cannot be examined: {reason}."
        remedy = "`pip install --force-reinstall huggingface_hub`"
        section.row("Hub cache", "unknown", named_in(str(reason)) or Problem(what, remedy))
    if error := findings.error("caches"):
        what = f"lit_mbldm does not load: {error}."
        remedy = "Mend what is wrong above, or install lit-mbldm anew in a fresh environment."
        section.row("Other caches", "unknown", named_in(error) or Problem(what, remedy))
    for name, place in (findings.value("caches") or {}).items():
        _cache(section, name, Path(place))
    temporary = _temporary(section)
    _free(section, {"here": _here(), "Hub cache": hub, "temporary files": temporary})
    return section


def _cache(section: Section, name: str, folder: Path) -> None:
    size = gigabytes(_size(folder)) if os.path.isdir(folder) else "empty"
    section.row(name, f"{size:<10} {folder}", _unwritable(name, folder))


def _hub_cache(section: Section) -> Path:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    name, folder = "Hub cache", Path(constants.HF_HUB_CACHE)
    try:
        found = scan_cache_dir(folder)
    except CacheNotFound:
        section.row(name, f"{'empty':<10} {folder}", _unwritable(name, folder))
        return folder
    except (OSError, ValueError) as error:
        remedy = "Name another folder by HF_HOME, or move what lies there."
        what = (
            f"The Hub cache {folder} cannot be read: {getattr(error, 'strerror', None) or error}."
        )
        section.row(name, f"unreadable {folder}", Problem(what, remedy))
        return folder
    count = f"{len(found.repos)} {'repository' if len(found.repos) == 1 else 'repositories'}"
    told = f"{gigabytes(found.size_on_disk):<10} {folder} ({count})"
    section.row(name, told, _unwritable(name, folder))
    for text in map(str, found.warnings):
        if text.startswith(_STRAY):
            continue
        remedy = "Remove that repository's folder from the cache; it is downloaded again when used."
        what = f"The Hub cache holds a damaged repository: {text.rstrip('.')}."
        section.row(name, "a damaged repository", Problem(what, remedy))
    return folder


def _xet_cache(section: Section) -> None:
    """What the Hub's client keeps of downloads beside the Hub cache."""
    from huggingface_hub.constants import HF_XET_CACHE

    if os.path.isdir(HF_XET_CACHE):
        _cache(section, "Xet cache", Path(HF_XET_CACHE))


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    parts = (folder.absolute(), *folder.absolute().parents)
    return next(part for part in parts if os.path.exists(part))  # also below a closed folder


def _unwritable(name: str, folder: Path) -> Problem | None:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        return Problem(
            f"{name}: {folder} cannot be written ({error.strerror}).",
            f"Set {_SETTINGS[name]} to a folder that can be.",
        )


def _temporary(section: Section) -> Path | None:
    name = "Temporary files"
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        what = f"There is no folder for temporary files: {error.strerror}."
        section.row(name, "nowhere", Problem(what, f"Set {_SETTINGS[name]} to a folder."))
        return None
    section.row(name, str(folder), _unwritable(name, folder))
    return folder


def _here() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed since the shell went there
        return None


def _free(section: Section, places: dict[str, Path | None]) -> None:
    """Free space, once for each disk."""
    disks: dict[int, tuple[list[str], Path]] = {}
    for name, place in places.items():
        if place is not None:
            folder = _existing(place)
            disks.setdefault(folder.stat().st_dev, ([], folder))[0].append(name)
    for names, folder in disks.values():
        free = shutil.disk_usage(folder).free
        problem = None
        if free < _LEAST_FREE:
            what = f"Only {gigabytes(free)} are free on the disk of {folder}."
            remedy = "Make room: shards, checkpoints and downloads need more than that."
            problem = Problem(what, remedy)
        section.row("Free", f"{gigabytes(free):<10} {folder} ({', '.join(names)})", problem)
