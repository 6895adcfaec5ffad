"""manifest.json: what a folder of shards holds, with a checksum of each shard."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing

MANIFEST = "manifest.json"
FORMAT = 1

Kind = Literal["images", "codes"]


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, number of samples, size in bytes, sha256 (hex)."""

    name: str
    count: int
    bytes: int
    sha256: str

    def has_size_in(self, folder: Path) -> bool:
        """Whether the file is in `folder`, with its size."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.bytes

    def matches_in(self, folder: Path) -> bool:
        """Whether the file is in `folder`, with its size and sha256."""
        return self.has_size_in(folder) and file_sha256(folder / self.name) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """Contents of a folder of shards.

    Attributes:
        kind: what a sample is.
        count: number of samples.
        source: where they came from.
        shards: the files, in order.
        skipped: `{"name", "reason"}` of each image left out.
        size: side of the images in pixels (images).
        upsampled: how many of them were enlarged to it (images).
        shortest_side: of the images before that, in pixels (images).
        fingerprint: of the codec (codes).
        shape: (S, h, w) of a sample's codes (codes).
        variants: 2 where the flipped image's codes are kept too, else 1 (codes).
        recipe: sha256 of all that decided the shards' contents.
    """

    kind: Kind
    count: int
    source: str
    shards: list[ShardEntry]
    skipped: list[dict[str, Any]] = field(default_factory=list)
    size: int | None = None
    upsampled: int | None = None
    shortest_side: int | None = None
    fingerprint: str | None = None
    shape: list[int] | None = None
    variants: int | None = None
    recipe: str | None = None

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the folder, whole or not at all."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **fields}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder.

        Raises:
            InputError: there is none, or it is not one of this format.
        """
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
        except OSError as error:
            raise _unreadable(str(path), error) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: bytes, name: str) -> "Manifest":
        """Read a manifest's text.

        Args:
            text: JSON.
            name: of the file, for messages.

        Raises:
            InputError: it is not one of this format.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields.pop("format")
            if version != FORMAT:
                raise ValueError(f"format {version}, this version reads format {FORMAT}")
            shards = [ShardEntry(**entry) for entry in fields.pop("shards")]
            if any(Path(shard.name).name != shard.name for shard in shards):
                raise ValueError("a shard lies outside the folder")
            return cls(shards=shards, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unreadable(name, error) from error

    def verify(self, folder: Path) -> None:
        """Check every shard's size and sha256.

        Raises:
            InputError: naming the shards that are missing or differ.
        """
        _refuse_differing(folder, [s for s in self.shards if not s.matches_in(folder)])

    def verify_sizes(self, folder: Path) -> None:
        """Check that every shard is there with its size, without reading it.

        Raises:
            InputError: naming the shards that are missing or differ.
        """
        _refuse_differing(folder, [s for s in self.shards if not s.has_size_in(folder)])


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_differing(folder: Path, shards: list[ShardEntry]) -> None:
    if shards:
        names = ", ".join(shard.name for shard in shards)
        raise InputError(
            f"Shards in {folder} are missing or differ from {MANIFEST}: {names}. Copy them again,"
            " or remove the folder and write all again."
        )


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(
        f"Expected a manifest of shards in {name}: {error!r}. Write the shards again."
    )
