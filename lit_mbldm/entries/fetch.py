"""Entries from the Hub: fetched by its client, which compares sizes only, and checked here."""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from torch import nn

from lit_mbldm.entries.entry import load_entry, read_files, write_files
from lit_mbldm.entries.entry_config import CONFIG, REFINER, WEIGHTS, EntryConfig, read_config
from lit_mbldm.entries.hub_client import download
from lit_mbldm.entries.hub_errors import PAUSES, hub_errors_explained, may_pass
from lit_mbldm.entries.integrity import DamagedError
from lit_mbldm.entries.load import PICKLES
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained

_BLOB_ID = re.compile("[0-9a-f]{40}")


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
    needed = {WEIGHTS, f"{REFINER}/{CONFIG}", f"{REFINER}/{WEIGHTS}"}
    fetch = _Fetch(repository, revision, cache_dir, local_files_only)
    with fetch.damage_explained():
        return load_entry(fetch.entry(needed.intersection))


def pull(repository: str, revision: str | None = None, out: Path | None = None) -> Path:
    """Fetch all files of an entry, and compare each with its sha256.

    Args:
        repository: `org/repo`.
        revision: branch, tag or commit; the default branch otherwise.
        out: folder for a copy of the entry, created where missing; must not hold other files of the
            same names.

    Returns:
        The folder with the files, in the Hub's cache or `out`.

    Raises:
        InputError: as `load_from_hub`.
        OSError: the Hub fails, or the disk.
    """
    fetch = _Fetch(repository, revision)
    with fetch.damage_explained():
        folder = fetch.entry(set)
        files = read_files(folder)
        load_entry(folder)
    if out is None:
        return folder
    with full_disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_files(out, files)
    return out


class _Fetch:
    """The files of one repository and revision."""

    def __init__(
        self,
        repository: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._repository = repository
        self._revision = revision
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE)
        self._offline = local_files_only or constants.HF_HUB_OFFLINE

    def entry(self, choose: Callable[[Iterable[str]], Iterable[str]]) -> Path:
        """Bring `config.json` and those of its files that are chosen, all of one commit."""
        folder = self._config().parent
        for name in sorted(choose(_read_config(folder / CONFIG).sha256)):
            self._file(name, folder.name)
        return folder

    @contextmanager
    def damage_explained(self) -> Iterator[None]:
        """Remove a file that is damaged from the cache, so that it comes anew, and say so."""
        try:
            yield
        except DamagedError as error:
            name = f"{self._repository}: {error.path}"
            remedy = (
                "Load it once with the network, which mends the cache."
                if self._offline
                else self._discard(error.path)
            )
            raise InputError(f"{name} is damaged: {error.reason}. {remedy}") from error

    def _discard(self, path: Path) -> str:
        """Remove a file of a snapshot with what its link points to, and say what to do then."""
        target = path.resolve()
        try:
            path.unlink(missing_ok=True)
            if target.is_relative_to(self._cache.resolve()):
                target.unlink(missing_ok=True)
        except OSError as error:
            return (
                f"It cannot be removed from the cache ({error.strerror}): have its owner remove it,"
                " or use another cache (HF_HOME, cache_dir)."
            )
        return (
            "It was removed from the cache: the same again fetches it anew. If that does not help,"
            " its owner must push it again."
        )

    def _config(self) -> Path:
        try:
            return self._file(CONFIG, self._revision)
        except InputError as error:
            if not isinstance(error.__cause__, RemoteEntryNotFoundError):
                raise
            raise InputError(
                f"{self._repository} is no entry of lit_mbldm's zoo: it has no {CONFIG}."
                f" {self._pickles()}Its owner can make one with `lit-mbldm push`."
            ) from error

    def _pickles(self) -> str:
        with hub_errors_explained(self._repository, self._revision):
            names = HfApi().list_repo_files(self._repository, revision=self._revision)
        pickles = [name for name in names if name.endswith(PICKLES)]
        return f"{pickles[0]} is pickled and may run code: it is never read. " if pickles else ""

    def _file(self, name: str, revision: str | None) -> Path:
        with hub_errors_explained(self._repository, revision), full_disk_explained(self._cache):
            for pause in PAUSES:
                try:
                    return download(self._repository, name, revision, self._cache, self._offline)
                except HfHubHTTPError as error:  # the client does not fetch a body again
                    if pause is None or not may_pass(error):
                        raise
                    time.sleep(pause)
        raise AssertionError


def _read_config(path: Path) -> EntryConfig:
    """Read a config of the cache, where git's id of a file's contents names it."""
    try:
        return read_config(path)
    except DamagedError:
        raise
    except InputError as error:  # such as another format, which damage may feign
        cached = path.resolve()
        if _BLOB_ID.fullmatch(cached.name) and blob_id(cached.read_bytes()) != cached.name:
            raise DamagedError(path, "it is not what the Hub has") from error
        raise


def blob_id(data: bytes) -> str:
    """Git's name of these contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
