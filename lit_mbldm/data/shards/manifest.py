"""manifest.json: what a folder of shards holds, with a checksum of each shard."""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Literal, TypeVar, get_args, get_origin, get_type_hints

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing

MANIFEST = "manifest.json"
FORMAT = 1
MAX_JSON_BYTES = 1 << 26
MAX_SHARD_BYTES = 1 << 50
MIN_SAMPLE_BYTES = 512  # a tar's header

Kind = Literal["images", "codes"]
T = TypeVar("T")


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
            with path.open("rb") as stream:
                return cls.parse(stream, str(path))
        except OSError as error:
            raise _unreadable(str(path), error) from error

    @classmethod
    def parse(cls, stream: BinaryIO, name: str) -> "Manifest":
        """Read a manifest.

        Args:
            stream: of JSON.
            name: of the file, for messages.

        Raises:
            InputError: it is not one of this format.
            OSError: the stream cannot be read.
        """
        try:
            fields = dict(read_json(stream))
            version = fields.pop("format")
            if version != FORMAT:
                raise ValueError(f"format {version}, this version reads format {FORMAT}")
            shards = [_typed(ShardEntry, entry) for entry in fields.pop("shards")]
            manifest = _typed(cls, {**fields, "shards": shards})
            manifest._check()
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unreadable(name, error) from error

    def _check(self) -> None:
        for shard in self.shards:
            if Path(shard.name).name != shard.name:
                raise ValueError("a shard lies outside the folder")
            least = shard.count * MIN_SAMPLE_BYTES
            if not 0 < least <= shard.bytes <= MAX_SHARD_BYTES:
                raise ValueError(f"{shard.name} of {shard.count} samples and {shard.bytes} bytes")
        if self.count != (total := sum(shard.count for shard in self.shards)):
            raise ValueError(f"a count of {self.count}, but {total} samples in its shards")
        if self.shape is not None and not is_shape(self.shape):
            raise ValueError(f"the shape {self.shape}")
        for entry in self.skipped:
            _typed(_Skipped, entry)

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


@dataclass(frozen=True)
class _Skipped:
    """An entry of a `SkipLog`."""

    name: str
    reason: str
    count: int = 1


def read_json(source: BinaryIO | bytes) -> Any:
    """What a stream or text of JSON holds; raises ValueError where it is none, deep or endless."""
    stream, text = (io.BytesIO(source) if isinstance(source, bytes) else source), bytearray()
    while block := stream.read(1 << 20):
        text += block
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes of JSON")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def is_shape(value: object) -> bool:
    """Whether it is a list [S, h, w] of a sample's codes."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(n) is int and 0 < n < 1 << 16 for n in value)
    )


def _typed(kind: type[T], fields: dict[str, Any]) -> T:
    """A dataclass of these fields, which have the types that it declares."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if not _is(value, hints[name]):
            raise TypeError(f"{name} is {value!r}")
    return kind(**fields)


def _is(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_is(value, option) for option in args)
    if origin is Literal:
        return value in args
    if origin is list:
        return isinstance(value, list) and all(_is(item, args[0]) for item in value)
    return type(value) is (origin or hint) and not (isinstance(value, int) and value < 0)


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
        f"Expected a manifest of shards in {name}: {error!r:.300}. Write the shards again."
    )
