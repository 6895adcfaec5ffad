"""Entries from the Hub: fetched by its client, which compares sizes only, and checked here."""

import hashlib
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
    """Load an entry as `load_pretrained` does: without card and picture."""
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    with _fetched(repository, revision, FILES - {CARD, PICTURE}, cache, offline) as folder:
        return load_entry(folder)


def pull(repository: str, revision: str | None = None, out: Path | None = None) -> Path:
    """Fetch all files of an entry into the Hub's cache, and a copy to `out`; check their sha256."""
    cache, offline = Path(constants.HF_HUB_CACHE), constants.HF_HUB_OFFLINE
    with _fetched(repository, revision, FILES, cache, offline) as folder:
        files = read_files(folder)
        load_entry(folder)
    if out is None:
        return folder
    with full_disk_explained(out):
        write_files(out, files)
    return out


@contextmanager
def _fetched(
    repository: str, revision: str | None, names: set[str], cache: Path, offline: bool
) -> Iterator[Path]:
    """Give the folder of `config.json` and those of its files that are named, all of one commit.

    A file that turns out to be damaged, and what its link points to, leave the cache.
    """
    try:
        with hub_errors_explained(repository, revision), full_disk_explained(cache):
            config = download(repository, CONFIG, revision, cache, offline)
            blob = config.resolve()  # git's id of its contents names it in the cache
            if re.fullmatch("[0-9a-f]{40}", blob.name) and blob_id(blob.read_bytes()) != blob.name:
                raise DamagedError(config, "it is not what the Hub has")
            for name in sorted(names & read_config(config).sha256.keys()):
                download(repository, name, config.parent.name, cache, offline)
        yield config.parent
    except DamagedError as error:
        remedy = "Load it once with the network, which mends the cache."
        if not offline:
            remedy = "Load it again, which fetches it anew. If that does not help, use another"
            remedy += " cache (HF_HOME), or ask its owner to push it again."
            blob = error.path.resolve()
            with suppress(OSError):  # somebody else's cache
                error.path.unlink()
                if blob.is_relative_to(cache.resolve()):
                    blob.unlink()
        told = f"{repository}: {error.path} is damaged: {error.reason}. {remedy}"
        raise InputError(told) from error


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
