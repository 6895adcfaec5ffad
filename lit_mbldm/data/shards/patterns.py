"""From what a user names to the shards it means: folders, globs, brace patterns, URLs."""

import glob
import os
import re
from pathlib import Path

import braceexpand

from lit_mbldm.data.shards.manifest import MANIFEST, UNFINISHED, Manifest
from lit_mbldm.data.shards.tar import ShardEntry
from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import base_name, folder_of, in_folder, is_http, is_url, listing, public

VAL = "val"  # folder of the validation part, in that of the training part
_SHIPPED = {"fruits": Path(__file__).parents[1] / "fruits"}
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
    """Paths and URLs of shards, in order; the manifests that are read go to `manifests`.

    Patterns are folders of shards, tars, globs or brace patterns, local or URLs, a set that ships
    (`fruits`, where there is no such path), or a list of them.
    Raises InputError for one that matches nothing or cannot be read, a local folder that is still
    being written, a web server's folder without a manifest, or a command (`pipe:`).
    """
    manifests = Manifests() if manifests is None else manifests
    found: list[str] = []
    for pattern in filter(None, map(_shipped, as_list(patterns))):
        if re.match(r"\s*pipe:", pattern, re.IGNORECASE):
            raise InputError("Expected a path or URL of shards, got pipe:…. Commands are not run.")
        try:
            for name in [pattern] if os.path.exists(pattern) else _braces(pattern):
                shards = _remote(name, manifests) if is_url(name) else _local(name, manifests)
                if not shards:
                    raise InputError(
                        f"No shards match {public(name)!r}. Expected a folder (`lit-mbldm shards`),"
                        " a .tar, or a pattern such as 'shards/images-{000000..000009}.tar'."
                    )
                found += shards
        except OSError as error:
            raise InputError(f"Shards cannot be found: {error}.") from None
    if not found:
        raise InputError("Expected at least one path or URL of shards, got none.")
    return found


def validation_part(train: Patterns) -> str | None:
    """The folder `val` in a folder of shards, local or a URL, where it holds any, else None."""
    if isinstance(train, list) or base_name(str(train)).lower().endswith(".tar"):
        return None
    folder = in_folder(_shipped(str(train)), VAL)
    if is_url(folder):
        manifest = Manifest.find(folder)
        return folder if manifest and manifest.count else None
    found = (Path(folder) / UNFINISHED).exists() or any(Path(folder).glob("*.tar"))
    return folder if found else None


def as_list(patterns: Patterns) -> list[str]:
    """Several patterns or one as a list."""
    return [str(p) for p in (patterns if isinstance(patterns, list) else [patterns])]


def _shipped(pattern: str) -> str:
    return pattern if os.path.exists(pattern) else str(_SHIPPED.get(pattern, pattern))


def _local(name: str, manifests: Manifests) -> list[str]:
    path = Path(name)
    if path.is_file():
        return [name]
    if path.is_dir() and (manifest := manifests[str(path)]):
        paths = [path / entry.name for entry in manifest.shards]
        if missing := [shard.name for shard in paths if not shard.is_file()]:
            raise InputError(
                f"{path / MANIFEST} names shards that are missing: {', '.join(missing)}. Copy"
                " or write them again."
            )
        return [str(shard) for shard in paths]
    pattern = f"{glob.escape(name)}/*.tar" if path.is_dir() else name
    found = sorted(map(Path, glob.glob(pattern, recursive=True)))
    for folder in {path, *(shard.parent for shard in found)}:
        if (folder / UNFINISHED).exists() and not (folder / MANIFEST).exists():
            raise InputError(
                f"The shards in {folder} are still being written, or were not finished. Run the"
                " `lit-mbldm shards` or `lit-mbldm encode` that writes them again until it is done."
            )
    return [str(path) for path in found]


def _remote(url: str, manifests: Manifests) -> list[str]:
    # a web server's `?` begins a query
    if not ("*" in public(url) if is_http(url) else glob.has_magic(url)):
        if base_name(url).lower().endswith(".tar"):
            return [url]
        if manifest := manifests[url]:
            return [in_folder(url, entry.name) for entry in manifest.shards]
        url = in_folder(url, "*.tar")
    if is_http(url) or "::" in url:
        raise InputError(
            f"Files cannot be listed here: {public(url)}. Name a folder that has a {MANIFEST}, or"
            " the shards, as in 'https://host/codes-{000000..000009}.tar'."
        )
    return listing(url)


def _braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        text = str(error).replace(pattern, public(pattern))
        raise InputError(f"Expected a brace pattern of shards: {text}.") from None
