"""From what a user names to the shards it means: folders, globs, brace patterns, URLs."""

import glob
import os
import re
from pathlib import Path

import braceexpand

from lit_mbldm.data.prepare.shard_folder import UNFINISHED
from lit_mbldm.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import listing
from lit_mbldm.storage.urls import base_name, folder_of, in_folder, is_http, is_url, public

VAL = "val"  # folder of the validation part, in that of the training part
Patterns = str | Path | list[str] | list[Path]


class Manifests(dict[str, Manifest | None]):
    """The manifests of folders, local or URLs, each read once; None where a folder has none."""

    def __missing__(self, folder: str) -> Manifest | None:
        self[folder] = Manifest.find(folder)
        return self[folder]

    def of_shard(self, url: str) -> tuple[Manifest, ShardEntry] | None:
        """The manifest beside a shard and its entry there, if any; raises InputError."""
        manifest = self[folder_of(url)]
        entry = manifest.entries.get(base_name(url)) if manifest is not None else None
        return None if manifest is None or entry is None else (manifest, entry)


def find_shards(patterns: Patterns, manifests: Manifests | None = None) -> list[str]:
    """Paths and URLs of shards, in order.

    Args:
        patterns: folders of shards, tars, globs or brace patterns, local or URLs, or a list of
            them. The folder of a web server, which cannot list, needs a manifest.
        manifests: what is read of them goes here.

    Raises:
        InputError: a pattern that matches nothing or cannot be read, a local folder that is still
            being written, or a command (`pipe:`).
    """
    manifests = Manifests() if manifests is None else manifests
    found: list[str] = []
    for pattern in map(str, [patterns] if isinstance(patterns, str | Path) else patterns):
        if not pattern:
            raise InputError("Expected a path or URL of shards, got an empty text.")
        if re.match(r"\s*pipe:", pattern, re.IGNORECASE):
            raise InputError(
                "Expected a path or URL of shards, got a command (pipe:…). Commands are not run:"
                " name the shards by their URL (http, https, s3, …)."
            )
        try:
            for name in [pattern] if os.path.exists(pattern) else _braces(pattern):
                found += _remote(name, manifests) if is_url(name) else _local(name, manifests)
        except OSError as error:
            raise InputError(f"Shards cannot be found: {error}.") from None
    if not found:
        raise InputError("Expected at least one path of shards, got an empty list.")
    return found


def validation_part(train: Patterns) -> str | None:
    """The folder `val` in a folder of shards, local or a URL, where it holds any, else None."""
    if isinstance(train, list) or base_name(str(train)).lower().endswith(".tar"):
        return None
    folder = in_folder(str(train), VAL)
    if not is_url(folder) and (
        (Path(folder) / UNFINISHED).exists() or any(Path(folder).glob("*.tar"))
    ):
        return folder
    return folder if Manifest.find(folder) else None


def display_name(patterns: Patterns) -> str:
    """The patterns as they are named in messages, without the secrets of URLs."""
    several = [patterns] if isinstance(patterns, str | Path) else patterns
    return ", ".join(public(str(pattern)) for pattern in several)


def _local(name: str, manifests: Manifests) -> list[str]:
    path = Path(name)
    if path.is_file():
        return [str(path)]
    if path.is_dir() and (manifest := manifests[str(path)]):
        paths = [path / entry.name for entry in manifest.shards]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise InputError(
                f"{path / MANIFEST} names shards that are missing: {', '.join(missing)}. Copy"
                " or write them again."
            )
    else:
        pattern = f"{glob.escape(name)}/*.tar" if path.is_dir() else name
        paths = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
        for folder in {path, *(found.parent for found in paths)}:
            _refuse_unfinished(folder)
    if path.is_dir() and not paths:
        raise InputError(
            f"Expected .tar shards in {path}, found none. Write them with `lit-mbldm shards`."
        )
    if not paths:
        raise _no_match(name)
    return [str(path) for path in paths]


def _refuse_unfinished(folder: Path) -> None:
    if (folder / UNFINISHED).exists() and not (folder / MANIFEST).exists():
        raise InputError(
            f"The shards in {folder} are still being written, or were not finished. Run the"
            " `lit-mbldm shards` or `lit-mbldm encode` that writes them again until it is done."
        )


def _remote(url: str, manifests: Manifests) -> list[str]:
    # a web server's `?` begins a query
    if "*" in public(url) if is_http(url) else glob.has_magic(url):
        return _listed(url)
    if base_name(url).lower().endswith(".tar"):
        return [url]
    if manifest := manifests[url]:
        return [in_folder(url, entry.name) for entry in manifest.shards]
    return _listed(in_folder(url, "*.tar"))


def _listed(url: str) -> list[str]:
    if is_http(url) or "::" in url:
        raise InputError(
            f"Files cannot be listed here: {public(url)}. Name a folder that has the {MANIFEST}"
            " that `lit-mbldm` wrote, or the shards, as in"
            " 'https://host/codes-{000000..000009}.tar'."
        )
    if not (found := listing(url)):
        raise _no_match(public(url))
    return found


def _braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        name = public(pattern)
        raise InputError(
            f"Expected a brace pattern of shards: {str(error).replace(pattern, name)}."
        ) from None


def _no_match(pattern: str) -> InputError:
    return InputError(
        f"No shards match {pattern!r}. Expected a folder of .tar shards, a .tar, or a pattern"
        " such as 'shards/images-{000000..000009}.tar' or 'shards/*.tar'."
    )
