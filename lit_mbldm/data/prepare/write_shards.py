"""Images of any source to WebDataset tar shards of square JPEGs."""

import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lit_mbldm.data.prepare.convert import Converted, convert
from lit_mbldm.data.prepare.shard_folder import Part, ShardFolder
from lit_mbldm.data.shards.manifest import FORMAT, UNFINISHED, Manifest
from lit_mbldm.data.shards.patterns import VAL
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage
from lit_mbldm.errors import check_numbers
from lit_mbldm.images import ImageError

ToJpegs = Callable[[Iterable[tuple[int, RawImage]]], Generator[Converted, None, None]]


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
    labels: bool = True,
) -> Manifest:
    """Crop, resize and pack images: `images-000000.tar`, … and `manifest.json`.

    A shard holds the images at `shard_size` consecutive positions of the source, by their positions
    (`00000042.jpg`, their labels in `00000042.cls`), less those that cannot be used. The same
    images give byte-identical shards with any number of workers. Called again after it was killed,
    it goes on with the shards that are missing; with all there, it only checks their sizes. Memory
    holds the names of all images, and a bounded number of images.

    Args:
        source: images as for `open_source`, or an opened source.
        out: folder of the shards, made where it is missing.
        size: side of the square images in pixels.
        val: share of the images, chosen by their names, that go to shards of their own in
            `out/val`; 0 for none.
        shard_size: images a shard.
        quality: of the JPEGs, 1 to 100, without chroma subsampling.
        workers: processes that convert; None takes one a core, 1 converts in this process. With
            several, a script must call this under `if __name__ == "__main__":`.
        max_skipped: largest tolerated fraction of images that cannot be used.
        labels: label images by class folders or what lies beside them, as `open_source`.

    Returns:
        The manifest of `out`, without what is in `out/val`.

    Raises:
        InputError: a bad argument, a bad source, other shards in `out`, a worker process that was
            killed, or, after everything is written, more skipped than tolerated.
        OSError: nothing can be written, as on a full disk; the finished shards stay.

    Example:
        >>> from importlib.resources import files
        >>> from tempfile import TemporaryDirectory
        >>> photos = files("lit_mbldm.data") / "photos"
        >>> shards = TemporaryDirectory()
        >>> write_shards(str(photos), shards.name, 64, workers=1).count
        4
    """
    check_numbers(1, size=size, shard_size=shard_size, workers=workers)
    check_numbers(1, 100, quality=quality)
    check_numbers(0, 1, val=val)
    out = Path(out)
    if isinstance(source, str | Path | Sequence):
        source = open_source(source, scratch=out / UNFINISHED, labels=labels)
    source.tell_ignored()
    parts: dict[Path, ImageSource] = {out: source}
    if val:
        parts = dict(zip((out, out / VAL), source.split(val), strict=True))
    recipe: dict[str, Any] = {"size": size, "shard_size": shard_size, "quality": quality}
    recipe["format"] = FORMAT
    if source.classes is not None:
        recipe["classes"] = [*source.classes]
    todo = []
    for folder, images in parts.items():
        names = [f"images-{n:06d}.tar" for n in range(-(-len(images) // shard_size))]
        shards = ShardFolder(folder, names, {**recipe, "source": images.fingerprint})
        todo.append((images, shards))
    to_jpegs = partial(convert, size=size, quality=quality, workers=workers)
    # the validation part first: where the training part is finished, it is too
    manifests = [_write(*each, size, shard_size, to_jpegs) for each in reversed(todo)]
    skips = SkipLog([skip for manifest in manifests for skip in manifest.skipped])
    good, kept = sum(manifest.count for manifest in manifests), f"What is written stays in {out}."
    skips.close(good, "images", max_skipped, kept, len(source))
    return manifests[-1]


def _write(
    images: ImageSource, folder: ShardFolder, size: int, shard_size: int, to_jpegs: ToJpegs
) -> Manifest:
    """Write the shards that are missing."""
    if (manifest := folder.manifest()) is not None:
        text = f"{folder.folder} holds these shards already: nothing is left to do."
        tqdm.write(text, file=sys.stderr)
        return manifest
    total = len(images)
    done = {n for n, name in enumerate(folder.names) if folder.has(name)}
    wanted = ((i, image) for i, image in enumerate(images) if i // shard_size not in done)
    initial = sum(min(shard_size, total - n * shard_size) for n in done)
    with (
        closing(to_jpegs(wanted)) as converted,
        tqdm(total=total, initial=initial, desc="shards", unit="image") as progress,
    ):
        for number, group in groupby(converted, lambda image: image.position // shard_size):
            skips, facts = SkipLog(), {"upsampled": 0, "shortest_side": None}
            members = _members(group, size, skips, facts, progress)
            folder.write(folder.names[number], members, skips, facts)

    def describe(parts: list[Part]) -> dict[str, Any]:
        sides = [part.facts["shortest_side"] for part in parts if part.entry is not None]
        return {
            "classes": images.classes,
            "size": size,
            "upsampled": sum(part.facts["upsampled"] for part in parts),
            "shortest_side": min(sides, default=None),
        }

    return folder.finish("images", images.name, describe)


def _members(
    converted: Iterator[Converted], size: int, skips: SkipLog, facts: dict[str, Any], progress: tqdm
) -> Iterator[tuple[str, bytes]]:
    """The members of one shard; notes what is skipped, and facts of the rest."""
    lost = Counter[tuple[str, str]]()
    for position, name, label, result in converted:
        progress.update()
        if isinstance(result, ImageError):
            lost[name, str(result)] += 1
            continue
        side = result.shorter_side
        facts["upsampled"] += side < size
        facts["shortest_side"] = min(side, facts["shortest_side"] or side)
        yield f"{position:08d}.jpg", result.data
        if label is not None:
            yield f"{position:08d}.cls", str(label).encode()
    for (name, reason), count in lost.items():
        skips.add(name, reason, count)
