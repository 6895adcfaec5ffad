"""The Hub's client, which names files of its cache by what an endpoint answers.

Up to its version 2.4.0 the client takes over an answer's ETag, commit and hash as parts of paths,
so that an endpoint (HF_ENDPOINT) that answers `ETag: "../../../x"` makes it write anywhere.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, set_client_factory
from huggingface_hub.utils import _http

from lit_mbldm.entries.hub_errors import try_again
from lit_mbldm.errors import InputError

_NAMES = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")
_PLAIN = re.compile(r'(W/)?"?\w[\w.+=-]*"?', re.ASCII)


def download(
    repository: str,
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Bring a file into the Hub's cache, and nothing anywhere else.

    Args:
        repository: `org/repo`.
        name: path of the file in it.
        revision: branch, tag or commit; the default branch otherwise.
        cache_dir: the client's own otherwise.
        local_files_only: take what the cache has, without the network.

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
    path = try_again(
        lambda: hf_hub_download(
            repository,
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    )
    return Path(path)


def _check(response: Any) -> None:
    """Refuse an answer before anything reads it."""
    if response.request.method != "HEAD":  # whose answers name the files
        return
    for name in _NAMES:
        value = response.headers.get(name)
        if value is not None and not _PLAIN.fullmatch(value):
            raise InputError(
                f"{constants.ENDPOINT} answers with the {name} {value!r:.80}, which is no name of a"
                " file: it may write outside the Hub's cache. Use another endpoint (HF_ENDPOINT)."
            )
