"""Images of any source to WebDataset tar shards of square JPEGs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lit_mbldm.data.prepare.convert import Converted, convert
from lit_mbldm.data.prepare.shard_folder import UNFINISHED, Part, ShardFolder, Skips
from lit_mbldm.data.prepare.split import split
from lit_mbldm.data.shards.manifest import FORMAT, Manifest
from lit_mbldm.data.shards.patterns import VAL
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage, changed, describe_ignored
from lit_mbldm.errors import InputError


def write_shards(
    source: str | Path | Sequence[str | Path] | ImageSource,
    out: str | Path,
    size: int,
    *,
    val: float = 0.0,
    shard_size: int = 1000,
    quality: int = 95,
    workers: int | None = None,
    max_skipped: float = 0.01,
) -> Manifest:
    """Crop, resize and pack images: `images-000000.tar`, … and `manifest.json`.

    A shard holds the images at `shard_size` consecutive positions of the source, by their positions
    (`00000042.jpg`), less those that cannot be used. The same images give byte-identical shards
    with any number of workers. Called again after it was killed, it goes on with the shards that
    are missing; with all there, it only checks their sizes. Of all images only
    the names are in memory.

    Args:
        source: images as for `open_source`, or an opened source.
        out: folder of the shards, made where it is missing.
        size: side of the square images in pixels.
        val: share of the images, chosen by their names, that go to shards of their own in
            `out/val`; 0 for none.
        shard_size: images a shard.
        quality: of the JPEGs, 1 to 100, without chroma subsampling.
        workers: processes that convert; None takes one a core, 1 converts in this process.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Returns:
        The manifest of `out`, without what is in `out/val`.

    Raises:
        InputError: a bad argument, a source that is bad or changes while it is read, other shards
            in `out`, another process at work there, a worker process that was killed, or, after
            everything is written, more skipped than tolerated.
        OSError: nothing can be written, as on a full disk; the finished shards stay.

    Example:
        >>> from importlib.resources import files
        >>> from tempfile import TemporaryDirectory
        >>> photos = files("lit_mbldm.data") / "photos"
        >>> shards = TemporaryDirectory()
        >>> write_shards(str(photos), shards.name, 64, workers=1).count
        4
    """
    if min(size, shard_size, workers or 1) < 1 or not 1 <= quality <= 100 or not 0 <= val < 1:
        raise InputError(
            "Expected size, shard_size and workers of at least 1, a quality from 1 to 100 and a"
            f" val from 0 to below 1, got {size}, {shard_size}, {workers}, {quality} and {val}."
        )
    out = Path(out)
    if isinstance(source, str | Path | Sequence):
        images = open_source(source, scratch=out / UNFINISHED)
    else:
        images = source
    if images.ignored:
        tqdm.write(describe_ignored(images.ignored), file=sys.stderr)
    parts: dict[Path, ImageSource] = {out: images}
    if val:
        parts = dict(zip((out, out / VAL), split(images, val), strict=True))
    todo = [_Todo(folder, part, size, shard_size, quality) for folder, part in parts.items()]
    # the validation part first: where the training part is finished, it is too
    manifests = [part.write(workers) for part in reversed(todo)]
    skips = _log([skip for manifest in manifests for skip in manifest.skipped])
    good = sum(manifest.count for manifest in manifests)
    skips.check(good, len(images), max_skipped, f"What is written stays in {out}.")
    if skips.count:
        tqdm.write(f"Skipped {skips.count} images:\n{skips.summary()}", file=sys.stderr)
    return manifests[-1]


@dataclass(frozen=True)
class _Recipe:
    """All that decides the shards' contents."""

    source: str
    size: int
    shard_size: int
    quality: int
    format: int = FORMAT


class _Members:
    """The members of one shard, and what is to be noted once they are written."""

    def __init__(self, converted: Iterable[Converted], size: int, progress: tqdm) -> None:
        self._converted = converted
        self._size = size
        self._progress = progress
        self._lost: list[tuple[str, str]] = []
        self._upsampled = 0
        self._shortest_side: int | None = None

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for position, name, result in self._converted:
            self._progress.update()
            if isinstance(result, ImageError):
                self._lost.append((name, str(result)))
                continue
            side = result.shorter_side
            self._upsampled += side < self._size
            self._shortest_side = min(side, self._shortest_side or side)
            yield f"{position:08d}.jpg", result.data

    def notes(self) -> tuple[Skips, dict[str, Any]]:
        skips = SkipLog()
        for (name, reason), same in groupby(self._lost):
            skips.add(name, reason, len(list(same)))
        facts = {"upsampled": self._upsampled, "shortest_side": self._shortest_side}
        return skips.entries, facts


class _Todo:
    """The shards of one folder; raises InputError where it holds others."""

    def __init__(
        self, out: Path, images: ImageSource, size: int, shard_size: int, quality: int
    ) -> None:
        self._images = images
        self._recipe = _Recipe(images.fingerprint, size, shard_size, quality)
        names = [f"images-{n:06d}.tar" for n in range(-(-len(images) // shard_size))]
        self._folder = ShardFolder(out, names, asdict(self._recipe))

    def write(self, workers: int | None) -> Manifest:
        """Write those that are missing."""
        if (manifest := self._folder.manifest()) is None:
            return _write_missing(self._folder, self._images, self._recipe, workers)
        where = self._folder.folder
        tqdm.write(f"{where} holds these shards already: nothing is left to do.", file=sys.stderr)
        return manifest


def _write_missing(
    folder: ShardFolder, images: ImageSource, recipe: _Recipe, workers: int | None
) -> Manifest:
    with folder.alone():
        if (manifest := folder.manifest()) is not None:
            return manifest
        S, total = recipe.shard_size, len(images)
        done = {n for n, name in enumerate(folder.names) if folder.part(name) is not None}
        wanted = ((i, image) for i, image in _numbered(images) if i // S not in done)
        progress = tqdm(
            total=total,
            initial=sum(min(S, total - n * S) for n in done),
            desc="shards",
            unit="image",
        )
        with closing(convert(wanted, recipe.size, recipe.quality, workers)) as converted, progress:
            for number, group in groupby(converted, lambda image: image.position // S):
                members = _Members(group, recipe.size, progress)
                folder.write(folder.names[number], _unless_empty(members), members.notes)
        manifest = folder.finish(partial(_manifest, images.name, recipe.size))
    assert manifest is not None
    return manifest


def _numbered(images: ImageSource) -> Iterator[tuple[int, RawImage]]:
    total, count = len(images), 0
    for image in images:
        count += 1
        if count > total:
            raise changed(images)
        yield count - 1, image
    if count < total:
        raise changed(images)


def _unless_empty(members: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]] | None:
    members = iter(members)
    first = next(members, None)
    return None if first is None else chain([first], members)


def _manifest(source: str, size: int, parts: list[Part]) -> Manifest:
    entries = [part.entry for part in parts if part.entry is not None]
    sides = [part.facts["shortest_side"] for part in parts if part.entry is not None]
    return Manifest(
        "images",
        sum(entry.count for entry in entries),
        source,
        entries,
        [skip for part in parts for skip in part.skips],
        size=size,
        upsampled=sum(part.facts["upsampled"] for part in parts),
        shortest_side=min(sides, default=None),
    )


def _log(skipped: Skips) -> SkipLog:
    log = SkipLog()
    log.entries += skipped
    return log
