"""From what a user names to the shards it means: folders, globs, brace patterns, URLs."""

import glob
import re
from pathlib import Path

import braceexpand

from lit_mbldm.data.prepare.shard_folder import UNFINISHED
from lit_mbldm.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import listing, open_binary
from lit_mbldm.storage.urls import base_name, folder_of, in_folder, is_http, is_url, public

VAL = "val"  # folder of the validation part, in that of the training part
Patterns = str | Path | list[str] | list[Path]


class Manifests:
    """The manifests of folders, local or URLs, each read once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Manifest | None, dict[str, ShardEntry]]] = {}

    def of_folder(self, folder: str) -> Manifest | None:
        """The manifest of a folder, None where it has none; raises InputError."""
        return self._read(folder)[0]

    def of_shard(self, url: str) -> tuple[Manifest, ShardEntry] | None:
        """The manifest beside a shard and its entry there, if any; raises InputError."""
        manifest, entries = self._read(folder_of(url))
        entry = entries.get(base_name(url))
        return None if manifest is None or entry is None else (manifest, entry)

    def _read(self, folder: str) -> tuple[Manifest | None, dict[str, ShardEntry]]:
        if folder not in self._found:
            manifest = _read_manifest(folder)
            entries = {entry.name: entry for entry in manifest.shards} if manifest else {}
            self._found[folder] = manifest, entries
        return self._found[folder]


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
            found += _remote(pattern, manifests) if is_url(pattern) else _local(pattern, manifests)
        except OSError as error:
            raise InputError(f"Shards cannot be found: {error}.") from None
    if not found:
        raise InputError("Expected at least one path of shards, got an empty list.")
    return found


def validation_part(train: Patterns) -> str | None:
    """The folder `val` in a folder of shards, local or a URL, where it holds any, else None."""
    if isinstance(train, list):
        return None
    folder = in_folder(str(train), VAL)
    if not is_url(folder):
        path = Path(folder)
        found = any((path / name).exists() for name in (MANIFEST, UNFINISHED))
        return folder if found or any(path.glob("*.tar")) else None
    if base_name(str(train)).lower().endswith(".tar"):
        return None
    return folder if Manifests().of_folder(folder) else None


def display_name(patterns: Patterns) -> str:
    """The patterns as they are named in messages, without the secrets of URLs."""
    several = [patterns] if isinstance(patterns, str | Path) else patterns
    return ", ".join(public(str(pattern)) for pattern in several)


def _local(pattern: str, manifests: Manifests) -> list[str]:
    if Path(pattern).is_dir():
        return _in_local_folder(Path(pattern), manifests)
    if Path(pattern).is_file():
        return [str(Path(pattern))]
    found = []
    for name in _braces(pattern):
        paths = sorted(Path(match) for match in glob.glob(name, recursive=True))
        if not paths:
            raise _no_match(name)
        if glob.has_magic(name):
            for folder in {path.parent for path in paths}:
                _refuse_unfinished(folder)
        found += [str(path) for path in paths]
    return found


def _in_local_folder(folder: Path, manifests: Manifests) -> list[str]:
    if manifest := manifests.of_folder(str(folder)):
        paths = [folder / entry.name for entry in manifest.shards]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise InputError(
                f"{folder / MANIFEST} names shards that are missing: {', '.join(missing)}. Copy"
                " or write them again."
            )
    else:
        _refuse_unfinished(folder)
        paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise InputError(
            f"Expected .tar shards in {folder}, found none. Write them with `lit-mbldm shards`."
        )
    return [str(path) for path in paths]


def _refuse_unfinished(folder: Path) -> None:
    if (folder / UNFINISHED).exists() and not (folder / MANIFEST).exists():
        raise InputError(
            f"The shards in {folder} are still being written, or were not finished. Run the"
            " `lit-mbldm shards` or `lit-mbldm encode` that writes them again until it is done."
        )


def _remote(pattern: str, manifests: Manifests) -> list[str]:
    found: list[str] = []
    for url in _braces(pattern):
        if _is_glob(url):
            found += _globbed(url)
        elif base_name(url).lower().endswith(".tar"):
            found.append(url)
        elif manifest := manifests.of_folder(url):
            found += [in_folder(url, entry.name) for entry in manifest.shards]
        elif is_http(url):
            raise InputError(
                f"Expected .tar shards, got {public(url)}, which is no .tar and has no {MANIFEST}"
                " that can be read. Put the manifest that `lit-mbldm` wrote beside the shards, or"
                " name them, as in 'https://host/codes-{000000..000009}.tar'."
            )
        else:
            found += _globbed(in_folder(url, "*.tar"))
    return found


def _globbed(url: str) -> list[str]:
    if is_http(url) or "::" in url:
        raise InputError(
            f"Files cannot be listed here: {public(url)}. Name the folder, where it has a"
            f" {MANIFEST}, or the shards, as in 'https://host/codes-{{000000..000009}}.tar'."
        )
    if not (found := listing(url)):
        raise _no_match(public(url))
    return found


def _is_glob(url: str) -> bool:
    """Whether a URL has wildcards; a web server's `?` begins a query."""
    return "*" in public(url) if is_http(url) else glob.has_magic(url)


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


def _read_manifest(folder: str) -> Manifest | None:
    if not is_url(folder):
        return Manifest.read(Path(folder)) if (Path(folder) / MANIFEST).exists() else None
    url = in_folder(folder, MANIFEST)
    try:
        with open_binary(url) as stream:
            return Manifest.parse(stream, public(url))
    except (FileNotFoundError, PermissionError):  # stores may deny what does not exist
        return None
    except OSError as error:
        raise InputError(f"The manifest of the shards cannot be read: {error}.") from None
