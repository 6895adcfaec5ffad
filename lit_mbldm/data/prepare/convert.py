"""Raw images to square JPEGs, by several processes, in order."""

import io
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain
from multiprocessing import get_context, parent_process
from typing import NamedTuple

from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError, fit_square, load_rgb
from lit_mbldm.parallel.launcher import cores

CHUNK_IMAGES = 8
CHUNK_BYTES = 1 << 20
CHUNKS_PER_WORKER = 3
MIN_CHUNKS = 32  # in flight, to keep few workers busy while a finished shard goes to the disk
IN_FLIGHT_BYTES = 1 << 28  # of undecoded images; one chunk may be larger


class Jpeg(NamedTuple):
    """An encoded image, and the shorter side of the one it was made of, in pixels."""

    data: bytes
    shorter_side: int


class Converted(NamedTuple):
    """What became of a raw image: position in the source, name, label, the JPEG or the reason."""

    position: int
    name: str
    label: int | None
    result: Jpeg | ImageError


Chunk = list[tuple[int, str, int | None, bytes | ImageError]]  # the last the undecoded image


def to_jpeg(data: bytes, size: int, quality: int) -> Jpeg:
    """Decode an image, crop and resize it to size×size pixels and encode it; raises ImageError."""
    image = load_rgb(data)
    stream = io.BytesIO()
    fit_square(image, size).save(stream, "JPEG", quality=quality, subsampling=0)
    return Jpeg(stream.getvalue(), min(image.size))


def convert(
    images: Iterable[tuple[int, RawImage]], size: int, quality: int, workers: int | None
) -> Generator[Converted, None, None]:
    """Read images, (position, image) each, and convert them; a bounded number is in memory.

    With None for `workers`, processes on all cores do it, with 1 this one. Raises InputError where
    such a process is killed.
    """
    workers = workers or cores()
    convert_chunk = partial(_convert, size=size, quality=quality)
    chunks = _chunks(images)
    done = map(convert_chunk, chunks) if workers == 1 else _pooled(chunks, convert_chunk, workers)
    yield from chain.from_iterable(done)


def _pooled(
    chunks: Iterator[Chunk], convert_chunk: Callable[[Chunk], list[Converted]], workers: int
) -> Iterator[list[Converted]]:
    pending: deque[tuple[Chunk, Future[list[Converted]]]] = deque()
    most = max(CHUNKS_PER_WORKER * workers, MIN_CHUNKS)
    # no forks: a copy of a process with threads may hang
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent)
    try:
        for chunk in chain(chunks, [None]):
            while pending and (
                chunk is None
                or len(pending) == most
                or _size(chunk) + sum(_size(other) for other, _ in pending) > IN_FLIGHT_BYTES
            ):
                yield pending[0][1].result()
                pending.popleft()
            if chunk is not None:
                # submit may start a worker, which Ctrl-C is not for
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    pending.append((chunk, pool.submit(convert_chunk, chunk)))
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BrokenProcessPool as error:
        where = f" at {pending[0][0][0][1]} or an image after it" if pending else ""
        raise InputError(
            f"A process that converts images was killed{where}, perhaps for want of memory. What is"
            " finished stays: run the same command again. If one image does it each time, remove"
            " that image."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Have this process end with the one that started it, which else it would outlive."""

    def wait() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _convert(chunk: Chunk, size: int, quality: int) -> list[Converted]:
    converted = []
    for position, name, label, data in chunk:
        try:
            result = data if isinstance(data, ImageError) else to_jpeg(data, size, quality)
        except ImageError as error:
            result = error
        converted.append(Converted(position, name, label, result))
    return converted


def _chunks(images: Iterable[tuple[int, RawImage]]) -> Iterator[Chunk]:
    """Read images, several at a time where they are small, so that sending them costs little."""
    chunk: Chunk = []
    for position, image in images:
        try:
            data: bytes | ImageError = image.read()
        except ImageError as error:
            data = error
        except OSError as error:
            data = ImageError(f"cannot be read ({error.strerror})")
        chunk.append((position, image.name, image.label, data))
        if len(chunk) == CHUNK_IMAGES or _size(chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _size(chunk: Chunk) -> int:
    return sum(len(data) for *_, data in chunk if isinstance(data, bytes))
