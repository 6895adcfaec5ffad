"""A folder of shards while it is written: by one process or many, over any number of starts.

Beside the shards lies `.unfinished`, with the recipe, a note of each finished shard and locks; the
manifest takes its place when all are there.
"""

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from lit_mbldm.data.shards.manifest import MANIFEST, Manifest
from lit_mbldm.data.shards.tar import ShardEntry, read_json, write_tar
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import full_disk_explained, replacing

UNFINISHED = ".unfinished"
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}

Skips = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """What became of one shard.

    Attributes:
        entry: of the file, None where no sample of it could be used.
        skips: entries of a `SkipLog`.
        facts: of the samples, for the manifest.
    """

    entry: ShardEntry | None
    skips: Skips
    facts: dict[str, Any]


class ShardFolder:
    """Shards of these names, made by this recipe.

    Args:
        folder: made where it is missing.
        names: of all the shards, in order.
        recipe: all that decides their contents, of JSON's types.

    Raises:
        InputError: the folder holds shards of another recipe, or finished ones that were changed,
            or lies on a file system without locks.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, names: list[str], recipe: dict[str, Any]) -> None:
        self.folder = folder
        self.names = names
        self.recipe = json.loads(json.dumps(recipe))
        self.recipe_hash = _sha256(self.recipe)
        self._notes = folder / UNFINISHED
        if self.manifest() is None and self._begin():
            return
        manifest = self._end_of_notes()
        assert manifest is not None
        manifest.verify_sizes(folder)

    def manifest(self) -> Manifest | None:
        """The manifest, None before all shards are written.

        Raises:
            InputError: it is of another recipe.
        """
        if not (self.folder / MANIFEST).exists():
            return None
        manifest = Manifest.read(self.folder)
        if manifest.recipe != self.recipe_hash:
            raise InputError(
                f"{self.folder} already holds shards of {manifest.source} with other settings, or"
                " of what it held then. Choose another folder, or remove it first."
            )
        return manifest

    def part(self, name: str) -> Part | None:
        """What became of a shard, None before it is finished or where its note is damaged."""
        try:
            with (self._notes / f"{name}.json").open("rb") as stream:
                note = read_json(stream)
            fields = note["part"]
            if note["sha256"] != _sha256(fields):
                return None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        entry = ShardEntry(**fields["entry"]) if fields["entry"] else None
        if entry is not None and not entry.has_size_in(self.folder):
            return None
        return Part(entry, fields["skips"], fields["facts"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing any shard; for those that take no claims.

        Raises:
            InputError: another process is at it.
        """
        with self._lock("alone", timeout=0) as held:
            if not held:
                raise InputError(
                    f"Another process is writing {self.folder}. Wait for it, or choose another"
                    " folder."
                )
            if self._end_of_notes() is None:
                self._sweep(".*.tar.*")
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold a shard alone; False where another process holds or has finished it.

        A process that dies lets go of what it held.
        """
        with self._lock(name, timeout=0) as held:
            # in this order: parts disappear only after the manifest has come
            mine = held and self.part(name) is None and self._end_of_notes() is None
            if mine:
                self._sweep(f".{name}.*")
            yield mine

    def write(
        self,
        name: str,
        members: Iterable[tuple[str, bytes]] | None,
        notes: Callable[[], tuple[Skips, dict[str, Any]]],
    ) -> Part:
        """Write a shard that is claimed, whole or not at all.

        Args:
            name: of the shard.
            members: (name, contents) in order; None where no sample can be used.
            notes: asked, after the last member, for the part's skips and facts.

        Raises:
            OSError: it cannot be written, as on a full disk.
        """
        with full_disk_explained(self.folder / name):
            entry = None if members is None else write_tar(self.folder / name, members)
            part = Part(entry, *notes())
            with replacing(self._notes / f"{name}.json") as temporary:
                fields = asdict(part)
                temporary.write_text(json.dumps({"sha256": _sha256(fields), "part": fields}))
        return part

    def finish(self, build: Callable[[list[Part]], Manifest]) -> Manifest | None:
        """Write the manifest, once, where all shards are finished; None where some are not.

        Args:
            build: makes the manifest of the parts in order; it gets its recipe here.
        """
        with self._lock("manifest") as held:
            if not held or self._end_of_notes() is not None:
                return self.manifest()
            self._sweep(f".{MANIFEST}.*")
            parts = [part for name in self.names if (part := self.part(name)) is not None]
            if len(parts) < len(self.names):
                return None
            manifest = replace(build(parts), recipe=self.recipe_hash)
            with full_disk_explained(self.folder / MANIFEST):
                manifest.write(self.folder)
            return self._end_of_notes()

    @contextmanager
    def _lock(self, name: str, timeout: float = -1) -> Iterator[bool]:
        """Whether a lock is held; not where another has it, or all is finished meanwhile."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self._notes / f"{name}.lock", timeout=timeout))
            except Timeout:
                yield False
            except (FileNotFoundError, FileExistsError):  # the notes are being removed
                if not (self.folder / MANIFEST).exists():
                    raise
                yield False
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                raise InputError(
                    f"The file system of {self.folder} has no file locks ({error.strerror}), which"
                    " keep processes from writing the same shard. Choose a folder on one that has"
                    " them, such as a local disk, and copy the finished shards."
                ) from error
            else:
                yield True

    def _end_of_notes(self) -> Manifest | None:
        """The manifest; with it go notes that a killed process left or a late lock brought back."""
        manifest = self.manifest()
        if manifest is not None:
            shutil.rmtree(self._notes, ignore_errors=True)
        return manifest

    def _sweep(self, names: str) -> None:
        """Remove the temporary files of processes that were killed."""
        for folder in (self.folder, self._notes):
            for left_over in folder.glob(f"{names}.tmp"):
                left_over.unlink(missing_ok=True)

    def _begin(self) -> bool:
        """Keep the recipe, or compare it with the one kept; False where all is finished."""
        foreign = not self._notes.exists() and any(self.folder.glob("*.tar"))
        if foreign and not (self.folder / MANIFEST).exists():
            raise InputError(
                f"{self.folder} already holds shards. Choose another folder, or remove it first."
            )
        path = self._notes / "recipe.json"
        with self._lock("recipe") as held:
            if not held or self._end_of_notes() is not None:
                return False
            with contextlib.suppress(FileNotFoundError):
                with path.open("rb") as stream:
                    self._compare(stream)
                return True
            if self._end_of_notes() is not None:
                return False
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(self.recipe))
            return True

    def _compare(self, stream: BinaryIO) -> None:
        try:
            started = dict(read_json(stream))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"Expected the recipe of unfinished shards in {self._notes}, got {error!r:.300}."
                f" Choose another folder, or remove {self.folder}."
            ) from error
        keys = sorted({*started, *self.recipe})
        differ = [key for key in keys if started.get(key) != self.recipe.get(key)]
        if differ:
            raise InputError(
                f"{self.folder} holds unfinished shards that were begun with another"
                f" {' and '.join(differ)}. Give what they were begun with, choose another folder,"
                " or remove it. Input files count as others where their modification times changed."
            )


def _sha256(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
