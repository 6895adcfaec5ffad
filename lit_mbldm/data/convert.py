"""Raw images to square JPEGs, by several processes, in order."""

import io
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import IO, NamedTuple, cast

from lit_mbldm.data.images import ImageError, fit_square, load_rgb
from lit_mbldm.data.raw_image import RawImage
from lit_mbldm.errors import InputError

CHUNK_IMAGES = 8
CHUNK_BYTES = 1 << 20
CHUNKS_PER_WORKER = 3
MIN_CHUNKS = 32  # in flight, to keep few workers busy while a finished shard goes to the disk


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
        InputError: a worker process was killed.
    """
    workers = workers or _cores()
    convert_chunk = partial(_convert_chunk, size=size, quality=quality)
    chunks = _chunks(_Read(position, image.name, _read(image)) for position, image in images)
    done = map(convert_chunk, chunks) if workers == 1 else _pooled(chunks, convert_chunk, workers)
    yield from chain.from_iterable(done)


def serve(tasks: IO[bytes], results: IO[bytes]) -> None:
    """Do a worker process's work: convert chunks until `tasks` ends, as when its parent dies."""
    while True:
        try:
            convert_chunk, chunk = pickle.load(tasks)
            _send(results, convert_chunk(chunk))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            return


class _Worker:
    """A process that converts chunks.

    It is no fork, since a copy of a process with threads may hang, nor does it import the user's
    script again, as multiprocessing's other processes do.
    """

    def __init__(self, convert_chunk: ConvertChunk) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lit_mbldm.data.convert_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._convert_chunk = convert_chunk

    @property
    def _tasks(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdin)

    @property
    def _results(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdout)

    def __call__(self, chunk: list[_Read]) -> list[Converted]:
        try:
            _send(self._tasks, (self._convert_chunk, chunk))
            return cast(list[Converted], pickle.load(self._results))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise InputError(
                "A process that converts images was killed, perhaps for want of memory. What is"
                " finished stays: run the same command again."
            ) from error

    def close(self) -> None:
        self._process.communicate()


def _pooled(
    chunks: Iterator[list[_Read]], convert_chunk: ConvertChunk, workers: int
) -> Iterator[list[Converted]]:
    idle: SimpleQueue[_Worker] = SimpleQueue()

    def run(chunk: list[_Read]) -> list[Converted]:
        try:
            worker = idle.get_nowait()
        except Empty:
            worker = _Worker(convert_chunk)
        try:
            return worker(chunk)
        finally:
            idle.put(worker)

    pending: deque[Future[list[Converted]]] = deque()
    most = max(CHUNKS_PER_WORKER * workers, MIN_CHUNKS)
    threads = ThreadPoolExecutor(workers)
    try:
        for chunk in chunks:
            pending.append(threads.submit(run, chunk))
            if len(pending) == most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
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
        size += len(image.data) if isinstance(image.data, bytes) else 0
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read(image: RawImage) -> bytes | ImageError:
    try:
        return image.read()
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"cannot be read ({error.strerror})")


def _send(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
