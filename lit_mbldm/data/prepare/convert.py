"""Raw images to square JPEGs, by several processes, in order."""

import io
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import NamedTuple, cast

from lit_mbldm.data.sources.images import ImageError, fit_square, load_rgb
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.parallel.cores import cores
from lit_mbldm.parallel.worker_process import WorkerProcess

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


ConvertChunk = Callable[[list[_Read]], list[Converted]]


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
        WorkerDiedError: a worker process was killed.
    """
    workers = workers or cores()
    convert_chunk = partial(_convert_chunk, size=size, quality=quality)
    chunks = _chunks(_Read(position, image.name, _read(image)) for position, image in images)
    done = map(convert_chunk, chunks) if workers == 1 else _pooled(chunks, convert_chunk, workers)
    yield from chain.from_iterable(done)


def answer(question: tuple[ConvertChunk, list[_Read]]) -> list[Converted]:
    """Do a worker process's work: convert a chunk."""
    convert_chunk, chunk = question
    return convert_chunk(chunk)


def _pooled(
    chunks: Iterator[list[_Read]], convert_chunk: ConvertChunk, workers: int
) -> Iterator[list[Converted]]:
    idle: SimpleQueue[WorkerProcess] = SimpleQueue()

    def run(chunk: list[_Read]) -> list[Converted]:
        try:
            worker = idle.get_nowait()
        except Empty:
            worker = WorkerProcess("lit_mbldm.data.prepare.convert_worker")
        converted = cast(list[Converted], worker.ask((convert_chunk, chunk)))
        idle.put(worker)
        return converted

    pending: deque[tuple[int, Future[list[Converted]]]] = deque()
    in_flight = 0
    most = max(CHUNKS_PER_WORKER * workers, MIN_CHUNKS)
    threads = ThreadPoolExecutor(workers)
    try:
        for chunk in chunks:
            size = sum(map(_size, chunk))
            while pending and (len(pending) == most or in_flight + size > MAX_BYTES):
                oldest, done = pending.popleft()
                in_flight -= oldest
                yield done.result()
            pending.append((size, threads.submit(run, chunk)))
            in_flight += size
        while pending:
            yield pending.popleft()[1].result()
    finally:
        threads.shutdown(cancel_futures=True)
        while not idle.empty():
            idle.get().close()


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
