"""Entries from the Hub: fetched by its client, which compares sizes only, and checked here."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from torch import nn

from lit_mbldm.entries.entry import load_entry, read_files, write_files
from lit_mbldm.entries.entry_config import CARD, CONFIG, FILES, PICTURE, DamagedError, read_config
from lit_mbldm.entries.hub_client import download
from lit_mbldm.entries.hub_errors import hub_errors_explained
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained


def load_from_hub(
    repository: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> nn.Module:
    """Load an entry: its config, its weights and its refiner's, and no other file.

    Of several processes on one machine the first to come fetches a file while the others wait.

    Args:
        repository: `org/repo`.
        revision: branch, tag or commit; the default branch otherwise.
        cache_dir: the Hub client's own otherwise.
        local_files_only: take what the cache has, without the network.

    Raises:
        InputError: no such repository, revision or entry, no access, or a file that is not the
            one that was pushed; that one leaves the cache.
        OSError: the Hub fails, or the disk.
    """
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    with _damage_explained(repository, cache, offline):
        return load_entry(_fetch(repository, revision, FILES - {CARD, PICTURE}, cache, offline))


def pull(repository: str, revision: str | None = None, out: Path | None = None) -> Path:
    """Fetch all files of an entry, and compare each with its sha256.

    Args:
        repository: `org/repo`.
        revision: branch, tag or commit; the default branch otherwise.
        out: folder for a copy of the entry, created where it is not there; must not hold other
            files of the same names.

    Returns:
        The folder with the files, in the Hub's cache or `out`.

    Raises:
        InputError: as `load_from_hub`.
        OSError: the Hub fails, or the disk.
    """
    cache, offline = Path(constants.HF_HUB_CACHE), constants.HF_HUB_OFFLINE
    with _damage_explained(repository, cache, offline):
        folder = _fetch(repository, revision, FILES, cache, offline)
        files = read_files(folder)
        load_entry(folder)
    if out is None:
        return folder
    with full_disk_explained(out):
        write_files(out, files)
    return out


def _fetch(
    repository: str, revision: str | None, names: set[str], cache: Path, offline: bool
) -> Path:
    """Bring `config.json` and those of its files that are named, all of one commit."""
    with hub_errors_explained(repository, revision), full_disk_explained(cache):
        config = download(repository, CONFIG, revision, cache, offline)
        blob = config.resolve()  # git's id of its contents names it in the cache
        if re.fullmatch("[0-9a-f]{40}", blob.name) and blob_id(blob.read_bytes()) != blob.name:
            raise DamagedError(config, "it is not what the Hub has")
        for name in sorted(names & read_config(config).sha256.keys()):
            download(repository, name, config.parent.name, cache, offline)
    return config.parent


@contextmanager
def _damage_explained(repository: str, cache: Path, offline: bool) -> Iterator[None]:
    """Remove a file that is damaged from the cache, so that it comes anew, and say so."""
    try:
        yield
    except DamagedError as error:
        if offline:
            remedy = "Load it once with the network, which mends the cache."
        else:
            remedy = _discard(error.path, cache)
        raise InputError(
            f"{repository}: {error.path} is damaged: {error.reason}. {remedy}"
        ) from error


def _discard(path: Path, cache: Path) -> str:
    """Remove a file of a snapshot with what its link points to, and say what to do then."""
    blob = path.resolve()
    try:
        path.unlink(missing_ok=True)
        if blob.is_relative_to(cache.resolve()):
            blob.unlink(missing_ok=True)
    except OSError as error:
        return (
            f"It cannot be removed from the cache ({error.strerror}): have its owner remove it, or"
            " use another cache (HF_HOME, cache_dir)."
        )
    return (
        "It was removed from the cache: the same again fetches it anew. If that does not help, its"
        " owner must push it again."
    )


def blob_id(data: bytes) -> str:
    """Git's name of these contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
