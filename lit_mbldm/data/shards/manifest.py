"""manifest.json: what a folder of shards holds, with the sha256 of each shard."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lit_mbldm.data.shards.tar import CodecTag, ShardEntry, make_tag, read_json
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import write_whole
from lit_mbldm.storage.urls import in_folder, open_binary, public

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"  # folder beside it, while the shards are written
FORMAT = 1
_RECIPE = "recipe"  # the file's key of `recipe_fingerprint`
MAX_SHARD_BYTES = 1 << 50
MIN_SAMPLE_BYTES = 512  # a tar's header

Kind = Literal["images", "codes"]
T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """Contents of a folder of shards.

    Attributes:
        kind: what a sample is.
        count: number of samples.
        source: where they came from.
        shards: the files, in order.
        skipped: `{"name", "reason"}` of each image left out.
        classes: names of the samples' labels 0, 1, …, where they are labelled.
        size: side of the images in pixels (images).
        upsampled: how many of them were enlarged to it (images).
        shortest_side: of the images before that, in pixels (images).
        fingerprint: of the codec (codes).
        shape: (S, h, w) of a sample's codes (codes).
        variants: 2 where the flipped image's codes are kept too, else 1 (codes).
        recipe_fingerprint: of all that decided the shards' contents; `recipe` in the file.
    """

    kind: Kind
    count: int
    source: str
    shards: list[ShardEntry]
    skipped: list[dict[str, Any]] = field(default_factory=list)
    classes: list[str] | None = None
    size: int | None = None
    upsampled: int | None = None
    shortest_side: int | None = None
    fingerprint: str | None = None
    shape: list[int] | None = None
    variants: int | None = None
    recipe_fingerprint: str | None = None

    @cached_property
    def entries(self) -> dict[str, ShardEntry]:
        """The shards by file name."""
        return {shard.name: shard for shard in self.shards}

    @property
    def tag(self) -> CodecTag | None:
        """The codec's tag of the shards, None for images."""
        return make_tag(self.fingerprint, self.shape) if self.kind == "codes" else None

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the folder, whole or not at all."""
        fields = {"format": FORMAT, **asdict(self)}
        fields[_RECIPE] = fields.pop("recipe_fingerprint")
        fields = {name: value for name, value in fields.items() if value is not None}
        write_whole(folder / MANIFEST, json.dumps(fields, indent=1) + "\n")

    @classmethod
    def find(cls, folder: str | Path) -> "Manifest | None":
        """Read the manifest of a folder or URL, None where it has none; raises InputError."""
        url = in_folder(str(folder), MANIFEST)
        try:
            with open_binary(url) as stream:
                fields = dict(read_json(stream))
            if (version := fields.pop("format")) != FORMAT:
                raise ValueError(f"format {version}, this version reads format {FORMAT}")
            shards = [_typed(ShardEntry, entry) for entry in fields.pop("shards")]
            recipe = fields.pop(_RECIPE, None)
            manifest = _typed(cls, {**fields, "shards": shards, "recipe_fingerprint": recipe})
            manifest._check()
            return manifest
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None  # a store may deny what does not exist
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unreadable(url, error) from error

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read the manifest as `find` does; raises InputError where there is none, too."""
        if (manifest := cls.find(folder)) is None:
            raise _unreadable(in_folder(str(folder), MANIFEST), "none there")
        return manifest

    def verify(self, folder: Path, contents: bool = True) -> None:
        """Raise InputError naming shards that are missing or of another size or sha256."""
        if bad := [shard.name for shard in self.shards if not shard.is_in(folder, contents)]:
            raise InputError(
                f"Shards in {folder} are missing or differ from {MANIFEST}: {', '.join(bad)}. Copy"
                " them again, or remove the folder and write all again."
            )

    def _check(self) -> None:
        for shard in self.shards:
            if Path(shard.name).name != shard.name:
                raise ValueError("a shard lies outside the folder")
            least = shard.count * MIN_SAMPLE_BYTES
            if not 0 < least <= shard.bytes <= MAX_SHARD_BYTES:
                raise ValueError(f"{shard.name} of {shard.count} samples and {shard.bytes} bytes")
        if self.count != (total := sum(shard.count for shard in self.shards)):
            raise ValueError(f"a count of {self.count}, but {total} samples in its shards")
        if self.shards:  # a manifest without shards has no shape
            _ = self.tag


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


def _unreadable(url: str, error: Exception | str) -> InputError:
    return InputError(
        f"Expected a manifest of shards in {public(url)}: {error!r:.300}. Write the shards again."
    )
