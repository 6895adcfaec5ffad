"""A folder of shards while it is written: by one process or many, over any number of starts.

Until all shards are there, each lies in a folder of its own in `.unfinished`, beside what the
manifest needs to know of it. The folder gets its name in one step, and the first to have it stays:
processes that write the same shard at once do work twice and no harm. At the end the shards move
to their places, and the manifest takes the place of `.unfinished`.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_mbldm.data.shards.manifest import MANIFEST, UNFINISHED, Kind, Manifest
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar import ShardEntry, write_tar
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained, write_whole

Members = Iterable[tuple[str, bytes]]
_RECIPE = "recipe"
_PART = "part.json"


@dataclass(frozen=True)
class Part:
    """What became of one shard: no entry where no sample of it could be used."""

    entry: ShardEntry | None
    skips: list[dict[str, Any]]
    facts: dict[str, Any]


class ShardFolder:
    """Shards of these names, made by a recipe: all that decides their contents, of JSON's types.

    Raises InputError where the folder holds shards of another recipe, or finished ones of another
    size.
    """

    def __init__(self, folder: Path, names: list[str], recipe: dict[str, Any]) -> None:
        self.folder = folder
        self.names = names
        text = json.dumps(recipe, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self._unfinished = folder / UNFINISHED
        if self.manifest() is None:
            self._begin(recipe)
        if (manifest := self.manifest()) is not None:
            manifest.verify(folder, contents=False)
            shutil.rmtree(self._unfinished, ignore_errors=True)  # left by a process that was killed

    def manifest(self) -> Manifest | None:
        """The manifest, None before all is written; raises InputError for one of another recipe."""
        if not (self.folder / MANIFEST).exists():
            return None
        manifest = Manifest.read(self.folder)
        if manifest.recipe_fingerprint != self._fingerprint:
            raise InputError(
                f"{self.folder} already holds shards of {manifest.source} with other settings, or"
                " of what it held then. Choose another folder, or remove it first."
            )
        return manifest

    def has(self, name: str) -> bool:
        """Whether a shard is written, by any process."""
        # in this order: what is unfinished disappears only after the manifest has come
        return (self._unfinished / name).is_dir() or (self.folder / MANIFEST).exists()

    def write(self, name: str, members: Members, skips: SkipLog, facts: dict[str, Any]) -> None:
        """Write a shard, whole or not at all; one that another process has written stays.

        `members`, (name, contents) in order, may fill the part's skips and facts on the way.
        """
        with full_disk_explained(self.folder / name), self._adding(name) as new:
            entry = write_tar(new / name, members)
            part = Part(entry if entry.count else None, skips.entries, facts)
            write_whole(new / _PART, json.dumps(asdict(part)))

    def finish(
        self, kind: Kind, source: str, describe: Callable[[list[Part]], dict[str, Any]]
    ) -> Manifest:
        """Move all shards to their places and write the manifest, unless another process has.

        `describe` gives what else the manifest says of the parts, which are in order.
        """
        try:
            parts = [self._part(name) for name in self.names]
            more = describe(parts) | {"recipe_fingerprint": self._fingerprint}
            entries = [part.entry for part in parts if part.entry is not None]
            skipped = [skip for part in parts for skip in part.skips]
            count = sum(entry.count for entry in entries)
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process has moved it
                    os.replace(self._unfinished / entry.name / entry.name, self.folder / entry.name)
            with full_disk_explained(self.folder):
                Manifest(kind, count, source, entries, skipped, **more).write(self.folder)
        except FileNotFoundError:  # another process has finished
            if self.manifest() is None:
                raise
        shutil.rmtree(self._unfinished, ignore_errors=True)
        return Manifest.read(self.folder)

    @contextmanager
    def _adding(self, name: str) -> Iterator[Path]:
        """Give a new folder, that gets this name in one step once it is filled; the first stays."""
        new = self._unfinished / f"{name}.{secrets.token_hex(8)}.tmp"
        new.mkdir(parents=True)
        try:
            yield new
            new.rename(self._unfinished / name)
        except OSError:
            if not self.has(name):
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _part(self, name: str) -> Part:
        fields = json.loads((self._unfinished / name / _PART).read_bytes())
        entry = ShardEntry(**fields["entry"]) if fields["entry"] else None
        return Part(entry, fields["skips"], fields["facts"])

    def _begin(self, recipe: dict[str, Any]) -> None:
        """Keep the recipe, or compare it with the one kept."""
        if not self.has(_RECIPE):
            if any(self.folder.glob("*.tar")):
                raise InputError(f"{self.folder} already holds shards. Choose another folder.")
            with self._adding(_RECIPE) as new:
                write_whole(new / _RECIPE, json.dumps(recipe))
        try:
            begun = json.loads((self._unfinished / _RECIPE / _RECIPE).read_bytes())
        except FileNotFoundError:
            if self.manifest() is None:
                raise
            return
        keys = begun.keys() | recipe.keys()
        if differ := [key for key in keys if begun.get(key) != recipe.get(key)]:
            raise InputError(
                f"{self.folder} holds unfinished shards that were begun with another"
                f" {' and '.join(sorted(differ))}. Give what they were begun with, with the same"
                " modification times of files, choose another folder, or remove it."
            )
