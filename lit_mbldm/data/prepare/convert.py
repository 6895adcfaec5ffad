"""Raw images to square JPEGs, by several processes, in order."""

import io
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context, parent_process
from typing import NamedTuple

from lit_mbldm.data.sources.images import ImageError, fit_square, load_rgb
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.cores import cores

CHUNK_IMAGES = 8
CHUNK_BYTES = 1 << 20
CHUNKS_PER_WORKER = 3
MIN_CHUNKS = 32  # in flight, to keep few workers busy while a finished shard goes to the disk
MAX_BYTES = 1 << 28  # of undecoded images in flight; one chunk may be larger


class Jpeg(NamedTuple):
    """An encoded image, and the shorter side of the one it was made of, in pixels."""

    data: bytes
    shorter_side: int


class Converted(NamedTuple):
    """What became of a raw image: its position in the source, its name, the JPEG or the reason."""

    position: int
    name: str
    result: Jpeg | ImageError


class _Read(NamedTuple):
    position: int
    name: str
    data: bytes | ImageError


class _Pending(NamedTuple):
    """A chunk that is being converted: its first image's name and its size in bytes."""

    first: str
    size: int
    converted: Future[list[Converted]]


def to_jpeg(data: bytes, size: int, quality: int) -> Jpeg:
    """Decode an image, crop and resize it to size×size pixels and encode it.

    Raises:
        ImageError: it cannot be used.
    """
    image = load_rgb(data)
    stream = io.BytesIO()
    fit_square(image, size).save(stream, "JPEG", quality=quality, subsampling=0)
    return Jpeg(stream.getvalue(), min(image.size))


def convert(
    images: Iterator[tuple[int, RawImage]], size: int, quality: int, workers: int | None
) -> Generator[Converted, None, None]:
    """Read images one after another and convert them, with a bounded number in memory.

    Args:
        images: (position, image).
        size: side of the results in pixels.
        quality: of the JPEGs.
        workers: processes; None takes all cores this process may use, 1 stays in it.

    Raises:
        InputError: a worker process was killed.
    """
    workers = workers or cores()
    convert_chunk = partial(_convert_chunk, size=size, quality=quality)
    chunks = _chunks(_Read(position, image.name, _read(image)) for position, image in images)
    done = map(convert_chunk, chunks) if workers == 1 else _pooled(chunks, convert_chunk, workers)
    yield from chain.from_iterable(done)


def _pooled(
    chunks: Iterator[list[_Read]],
    convert_chunk: Callable[[list[_Read]], list[Converted]],
    workers: int,
) -> Iterator[list[Converted]]:
    pending: deque[_Pending] = deque()
    most = max(CHUNKS_PER_WORKER * workers, MIN_CHUNKS)
    # no forks: a copy of a process with threads may hang
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        for chunk in chunks:
            size = sum(map(_size, chunk))
            while pending and (
                len(pending) == most or size + sum(other.size for other in pending) > MAX_BYTES
            ):
                yield pending[0].converted.result()
                pending.popleft()
            with _interrupts_held():  # submit may start a worker
                pending.append(_Pending(chunk[0].name, size, pool.submit(convert_chunk, chunk)))
        while pending:
            yield pending[0].converted.result()
            pending.popleft()
    except BrokenProcessPool as error:
        where = f" at {pending[0].first} or an image after it" if pending else ""
        raise InputError(
            f"A process that converts images was killed{where}, perhaps for want of memory. What is"
            " finished stays: run the same command again. If one image does it each time, remove"
            " that image."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C, for good in processes that are started here: it is for their parent."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Have this process end with the one that started it, which else it would outlive."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _convert_chunk(chunk: list[_Read], size: int, quality: int) -> list[Converted]:
    return [_convert(image, size, quality) for image in chunk]


def _convert(image: _Read, size: int, quality: int) -> Converted:
    if isinstance(image.data, ImageError):
        return Converted(image.position, image.name, image.data)
    try:
        return Converted(image.position, image.name, to_jpeg(image.data, size, quality))
    except ImageError as error:
        return Converted(image.position, image.name, error)


def _chunks(images: Iterator[_Read]) -> Iterator[list[_Read]]:
    """Several images at a time where they are small, so that sending them costs little."""
    chunk: list[_Read] = []
    size = 0
    for image in images:
        chunk.append(image)
        size += _size(image)
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(image: _Read) -> int:
    return len(image.data) if isinstance(image.data, bytes) else 0


def _read(image: RawImage) -> bytes | ImageError:
    try:
        return image.read()
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"cannot be read ({error.strerror})")
