"""Image shards to code shards, by any number of threads, processes and nodes."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lit_mbldm.codecs.base import full_float32
from lit_mbldm.data.prepare.codec import Codec
from lit_mbldm.data.prepare.shard_codes import EncodeSettings, ShardCodes, ShardError, several_sizes
from lit_mbldm.data.prepare.shard_folder import Part, ShardFolder, check_skipped
from lit_mbldm.data.shards.locate import Patterns, ShardSet, open_shards
from lit_mbldm.data.shards.manifest import FORMAT, Manifest
from lit_mbldm.data.shards.patterns import VAL, validation_part
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.launcher import own_cores

POLL_SECONDS = 1.0


def encode_shards(
    shards: Patterns | ShardSet,
    out: str | Path,
    codec: Codec,
    *,
    flip: bool = True,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    max_skipped: float = 0.01,
) -> Manifest:
    """Encode image shards: one `codes-000000.tar` an input shard, and `manifest.json`.

    The validation part in a folder of shards is encoded before, into `out/val`, without flips.

    A sample is `<key>.npy`, uint8 (V, S, h, w). The first member of each shard, `__codec__`,
    holds the codec's fingerprint and the shape.

    Any number of processes and nodes may do it together, each with its own `rank`, at the same
    time or one after another: each begins with its share of the shards, goes on with those that no
    other has finished, and returns when all are there. What a killed run has finished is not done
    again. The bytes depend on the images, the codec, `flip` and the kind of `device` alone: where
    two codewords are equally near, a GPU may choose another than a CPU.

    A damaged shard is never encoded in silence: what cannot be read of it is skipped and counted;
    where all can be read, but the shard differs from the sha256 in its manifest, it is an error.

    Args:
        shards: folder of image shards, tar, glob or brace pattern, or a list of them, or an opened
            set.
        out: folder of the code shards, made where it is missing.
        codec: moved to `device` where it is an nn.Module.
        flip: V = 2: also encode each image flipped horizontally; else V = 1.
        batch_size: images a batch.
        device: of the codec.
        workers: shards encoded at once; None takes one a core on the CPU, one on a GPU.
        rank: of this process; the first alone prints what was skipped.
        world_size: number of processes.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Returns:
        The manifest of `out`, without what is in `out/val`.

    Raises:
        InputError: no image shards, images of a size the codec cannot encode or of several
            sizes, other shards in `out`; once the others are written, shards out of reach or that
            differ from their manifest; once all are, more skipped than tolerated.
        OSError: `out` cannot be written, as on a full disk.

    Example:
        >>> from importlib.resources import files
        >>> from tempfile import TemporaryDirectory
        >>> from lit_mbldm.data import write_shards
        >>> from lit_mbldm.zoo import load_pretrained
        >>> shards, codes = TemporaryDirectory(), TemporaryDirectory()
        >>> photos = files("lit_mbldm.data") / "photos"
        >>> _ = write_shards(str(photos), shards.name, 64, workers=1)
        >>> encode_shards(shards.name, codes.name, load_pretrained("jpq-48"), workers=1).count
        4
    """
    if batch_size < 1 or not (workers is None or workers >= 1):
        raise InputError(
            f"Expected a batch_size and workers of at least 1, got {batch_size} and {workers}."
        )
    if not 0 <= rank < world_size:
        raise InputError(f"Expected a rank from 0 to {world_size - 1}, got {rank}.")
    device = torch.device(device)
    workers = workers or (own_cores() if device.type == "cpu" else 1)

    def encode(images: ShardSet, folder: Path, flip: bool) -> Manifest:
        threads = max(own_cores() // min(workers, len(images.shards)), 1)
        settings = EncodeSettings(codec, flip, batch_size, device, threads)
        encoding = _Encoding(images, folder, settings)
        manifest = encoding.run(rank, world_size, workers)
        check_skipped([manifest], images.count, max_skipped, folder, quiet=rank > 0)
        return manifest

    if isinstance(shards, ShardSet):
        return encode(shards, Path(out), flip)
    if (val := validation_part(shards)) is not None:
        encode(open_shards(val), Path(out) / VAL, False)
    return encode(open_shards(shards), Path(out), flip)


class _Encoding:
    """The shards of one folder, encoded in threads that take whole ones.

    The codec and the decoders compute outside Python's global lock, so threads scale.
    """

    def __init__(self, images: ShardSet, out: Path, settings: EncodeSettings) -> None:
        if images.kind != "images":
            raise InputError(f"Expected image shards, got {images.kind} in {images.name}.")
        if images.size is not None:
            settings.codec.latent_shape(images.size, images.size)
        recipe = {
            "format": FORMAT,
            "codec": settings.codec.fingerprint,
            "flip": settings.flip,
            "image shards": images.versions(),
        }
        names = [f"codes-{number:06d}.tar" for number in range(len(images.shards))]
        self._images = images
        self._folder = ShardFolder(out, names, recipe)
        self._settings = settings
        self._failed: dict[int, ShardError] = {}
        self._progress = tqdm(disable=True)

    def run(self, rank: int, world_size: int, workers: int) -> Manifest:
        """Encode what is not finished, this process's share first."""
        if (manifest := self._folder.manifest()) is not None:
            return manifest
        if isinstance(self._settings.codec, nn.Module):
            self._settings.codec.to(self._settings.device)
        counts = {n: shard.count for n, shard in enumerate(self._images.shards) if not self._has(n)}
        todo = list(counts)
        Random().shuffle(todo)  # so that processes seldom encode the same shard at once
        todo.sort(key=lambda number: number % world_size != rank)
        label = "encode" if world_size == 1 else f"encode (process {rank} of {world_size})"
        total, left = self._images.count, sum(counts.values())
        with tqdm(desc=label, total=total, initial=total - left, unit="image") as self._progress:
            # The codec switches global settings: around all threads, so that none undoes another's.
            with full_float32(self._settings.device), _threads(self._settings.threads):
                self._encode_all(todo, workers)
            failed = {n: e for n, e in self._failed.items() if not self._has(n)}
            if failed:
                raise ShardError.of_several([failed[number] for number in sorted(failed)])
            return self._folder.finish("codes", self._images.name, self._describe)

    def _encode_all(self, todo: list[int], workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            pending = {pool.submit(self._encode, number) for number in todo}
            try:
                while pending:  # waking now and then: a signal that another thread got waits for it
                    done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:  # the others finish the shard that they are at
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _encode(self, number: int) -> None:
        if self._has(number):
            self._count(self._images.shards[number].count)
            return
        codes = ShardCodes(self._images.shards[number], self._settings, self._count)
        try:
            self._folder.write(self._folder.names[number], codes.members(), codes.notes)
        except ShardError as error:
            self._failed[number] = error

    def _has(self, number: int) -> bool:
        return self._folder.has(self._folder.names[number])

    def _count(self, images: int) -> None:
        with self._progress.get_lock():
            self._progress.update(images)

    def _describe(self, parts: list[Part]) -> dict[str, Any]:
        sizes = [(part.facts["size"], part.entry.name) for part in parts if part.entry is not None]
        for size, name in sizes:
            if size != sizes[0][0]:
                raise several_sizes(sizes[0][0], size, name)
        codec = self._settings.codec
        shape = list(codec.latent_shape(*sizes[0][0])) if sizes else None
        variants = self._settings.variants
        return {"fingerprint": codec.fingerprint, "shape": shape, "variants": variants}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let each thread of this process compute with so many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
