"""Entries from the Hub: fetched by its client, which compares sizes only, and checked here."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, set_client_factory
from huggingface_hub.utils import _http
from torch import nn

from lit_mbldm.entries.entry import load_entry, read_files, write_files
from lit_mbldm.entries.entry_config import CARD, CONFIG, FILES, PICTURE, DamagedError, read_config
from lit_mbldm.entries.hub_errors import hub_errors_explained, try_again
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained

_NAMES = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")
_PLAIN = re.compile(r'(W/)?"?\w[\w.+=-]*"?', re.ASCII)


def load_from_hub(
    repository: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> nn.Module:
    """Load an entry as `load_pretrained` does: its config, weights and refiner, no other file.

    Of several processes on one machine the first to come fetches a file while the others wait. A
    damaged file leaves the cache.
    """
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    with _damage_explained(repository, cache, offline):
        return load_entry(_fetch(repository, revision, FILES - {CARD, PICTURE}, cache, offline))


def pull(repository: str, revision: str | None = None, out: Path | None = None) -> Path:
    """Fetch all files of an entry into the Hub's cache, and a copy to `out`; check their sha256.

    Raises:
        InputError: no such repository, revision or entry, no access, other files in `out`, or a
            file that is not the one that was pushed; that one leaves the cache.
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
    """Remove a damaged file, and what its link points to, from the cache, and say so."""
    try:
        yield
    except DamagedError as error:
        path, blob = error.path, error.path.resolve()
        remedy = "Load it once with the network, which mends the cache."
        if not offline:
            with suppress(OSError):  # somebody else's cache
                path.unlink(missing_ok=True)
                if blob.is_relative_to(cache.resolve()):
                    blob.unlink(missing_ok=True)
            remedy = (
                "It cannot be removed from the cache: use another (HF_HOME, cache_dir)."
                if os.path.lexists(path)
                else "The same again fetches it anew, or its owner must push it again."
            )
        raise InputError(f"{repository}: {path} is damaged: {error.reason}. {remedy}") from error


def download(
    repository: str,
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Bring a file into the Hub's cache, and nothing anywhere else.

    Up to its version 2.4.0 the client takes over an answer's ETag, commit and hash as parts of
    paths: an endpoint (HF_ENDPOINT) with `ETag: "../../../x"` would make it write anywhere.

    Raises:
        InputError: the endpoint answers with what is no name of a file.
        Exception: whatever the client raises.
    """
    make = _http._GLOBAL_CLIENT_FACTORY  # a user's own, such as one with a proxy, goes on serving
    if not hasattr(make, "checks"):

        def make_checked() -> Any:
            client = make()
            client.event_hooks["response"].append(_check)
            return client

        vars(make_checked)["checks"] = True
        set_client_factory(make_checked)
    options = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    ask: Any = hf_hub_download  # its type has three forms
    return Path(try_again(partial(ask, repository, name, **options)))


def _check(response: Any) -> None:
    """Refuse an answer before anything reads it."""
    for name in _NAMES if response.request.method == "HEAD" else ():  # which names the files
        value = response.headers.get(name)
        if value is not None and not _PLAIN.fullmatch(value):
            raise InputError(
                f"{constants.ENDPOINT} answers with the {name} {value!r:.80}, which is no name of a"
                " file: it may write outside the Hub's cache. Use another endpoint (HF_ENDPOINT)."
            )


def blob_id(data: bytes) -> str:
    """Git's name of these contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
