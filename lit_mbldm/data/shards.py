"""Images of any source to WebDataset tar shards of square JPEGs."""

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from lit_mbldm.data.images import ImageError, fit_square, load_rgb
from lit_mbldm.data.manifest import Manifest, ShardEntry, refuse_existing
from lit_mbldm.data.skips import SkipLog
from lit_mbldm.data.sources import ImageSource, RawImage, open_source
from lit_mbldm.data.tar_writer import write_tar
from lit_mbldm.errors import InputError

Convert = Callable[[bytes], bytes | ImageError]
IN_FLIGHT = 4


def write_shards(
    source: str | Path | Sequence[str | Path] | ImageSource,
    out: str | Path,
    size: int,
    *,
    shard_size: int = 1000,
    quality: int = 95,
    workers: int | None = None,
    max_skipped: float = 0.01,
) -> Manifest:
    """Crop, resize and pack images: `images-000000.tar`, … and `manifest.json`.

    The same images give byte-identical shards with any number of workers.

    Args:
        source: a folder, tar, zip or list of tars (see `open_source`), or an opened source.
        out: folder of the shards, made where it is missing.
        size: side of the square images in pixels.
        shard_size: images a shard.
        quality: of the JPEGs, 1 to 100, without chroma subsampling.
        workers: processes; None takes all cores, 1 stays in this process.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Raises:
        InputError: a bad argument or source, shards already in `out`, or, after everything is
            written, more skipped than tolerated.
    """
    if size < 1 or shard_size < 1 or not 1 <= quality <= 100 or (workers or 1) < 1:
        raise InputError(
            "Expected size, shard_size and workers of at least 1 and a quality from 1 to 100, got"
            f" {size}, {shard_size}, {workers} and {quality}."
        )
    images = open_source(source) if isinstance(source, str | Path | Sequence) else source
    folder = Path(out)
    refuse_existing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    skips = SkipLog()
    entries: list[ShardEntry] = []
    jpegs = _good_jpegs(images, partial(to_jpeg, size=size, quality=quality), workers, skips)
    for group in _groups(jpegs, shard_size):
        start = len(entries) * shard_size
        members = ((f"{key:08d}.jpg", jpeg) for key, jpeg in enumerate(group, start))
        entries.append(write_tar(folder / f"images-{len(entries):06d}.tar", members))
    count = sum(entry.count for entry in entries)
    manifest = Manifest("images", count, images.name, entries, skips.entries, size=size)
    if count:
        manifest.write(folder)
    skips.check(count, count + len(skips.entries), max_skipped, f"What is written stays in {out}.")
    _report(images.ignored, skips)
    return manifest


def to_jpeg(data: bytes, size: int, quality: int) -> bytes | ImageError:
    """Decode, crop, resize and encode an image; the error is returned, not raised."""
    try:
        stream = io.BytesIO()
        image = fit_square(load_rgb(data), size)
        image.save(stream, "JPEG", quality=quality, subsampling=0)
        return stream.getvalue()
    except ImageError as error:
        return error


def _good_jpegs(
    images: ImageSource, convert: Convert, workers: int | None, skips: SkipLog
) -> Iterator[bytes]:
    workers = workers or os.cpu_count() or 1
    progress = tqdm(total=len(images), desc="shards", unit="image")
    converted = _in_turn(images, convert) if workers == 1 else _pooled(images, convert, workers)
    with progress:
        for name, result in converted:
            progress.update()
            if isinstance(result, bytes):
                yield result
            else:
                skips.add(name, result)
                progress.set_postfix(skipped=len(skips.entries))


def _in_turn(images: ImageSource, convert: Convert) -> Iterator[tuple[str, bytes | ImageError]]:
    for image in images:
        data = _read(image)
        yield image.name, convert(data) if isinstance(data, bytes) else data


def _pooled(
    images: ImageSource, convert: Convert, workers: int
) -> Iterator[tuple[str, bytes | ImageError]]:
    """Convert in processes, in order, with a bounded number of images in flight."""
    pending: deque[tuple[str, Future[bytes | ImageError] | ImageError]] = deque()
    with ProcessPoolExecutor(workers) as pool:
        for image in images:
            data = _read(image)
            task = pool.submit(convert, data) if isinstance(data, bytes) else data
            pending.append((image.name, task))
            if len(pending) >= IN_FLIGHT * workers:
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())


def _read(image: RawImage) -> bytes | ImageError:
    try:
        return image.read()
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"cannot be read ({error.strerror})")


def _result(
    name: str, task: Future[bytes | ImageError] | ImageError
) -> tuple[str, bytes | ImageError]:
    return name, task if isinstance(task, ImageError) else task.result()


def _groups(jpegs: Iterator[bytes], size: int) -> Iterator[Iterator[bytes]]:
    for first in jpegs:
        yield chain([first], islice(jpegs, size - 1))


def _report(ignored: int, skips: SkipLog) -> None:
    if ignored:
        tqdm.write(f"Ignored {ignored} files that are no images.", file=sys.stderr)
    if skips.entries:
        tqdm.write(f"Skipped {len(skips.entries)} images:\n{skips.summary()}", file=sys.stderr)
