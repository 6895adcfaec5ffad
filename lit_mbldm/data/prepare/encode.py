"""Image shards to code shards, by any number of threads, processes and nodes."""

import sys
import time
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Event, Lock

import torch
from torch import nn
from tqdm import tqdm

from lit_mbldm.codecs.base import full_float32
from lit_mbldm.data.prepare.codec import Codec
from lit_mbldm.data.prepare.shard_codes import EncodeSettings, ShardCodes, ShardError, several_sizes
from lit_mbldm.data.prepare.shard_folder import Part, ShardFolder
from lit_mbldm.data.shards.locate import Patterns, ShardSet, open_shards
from lit_mbldm.data.shards.manifest import FORMAT, Manifest
from lit_mbldm.data.shards.patterns import VAL, validation_part
from lit_mbldm.data.shards.skips import SkipLog
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
    wait: bool = False,
    max_skipped: float = 0.01,
) -> Manifest | None:
    """Encode image shards: one `codes-000000.tar` an input shard, and `manifest.json`.

    The validation part in a folder of shards is encoded before, into `out/val`, without flips.

    A sample is `<key>.npy`, uint8 (V, S, h, w). The first member of each shard, `__codec__`,
    holds the codec's fingerprint and the shape.

    Any number of processes and nodes may do it together, each with its own `rank`, at the same
    time or one after another: each begins with its share of the shards and goes on with those
    that no other has taken. What a killed run has finished is not done again. The bytes depend
    on the images, the codec, `flip` and the kind of `device` alone: where two codewords are
    equally near, a GPU may choose another than a CPU.

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
        rank: of this process.
        world_size: number of processes.
        wait: until the other processes have finished their shards, and take over those of the
            ones that die.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Returns:
        The manifest; None without `wait` where other processes still have shards to finish.

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
    if not isinstance(shards, ShardSet) and (val := validation_part(shards)) is not None:
        encode_shards(
            val,
            Path(out) / VAL,
            codec,
            flip=False,
            batch_size=batch_size,
            device=device,
            workers=workers,
            rank=rank,
            world_size=world_size,
            wait=wait,
            max_skipped=max_skipped,
        )
    images = shards if isinstance(shards, ShardSet) else open_shards(shards)
    _check_arguments(images, batch_size, workers, rank, world_size)
    if images.size is not None:
        codec.latent_shape(images.size, images.size)
    recipe = {
        "format": FORMAT,
        "codec": codec.fingerprint,
        "flip": flip,
        "image shards": images.versions(),
    }
    names = [f"codes-{number:06d}.tar" for number in range(len(images.shards))]
    folder = ShardFolder(Path(out), names, recipe)
    manifest = folder.manifest()
    if manifest is None:
        device = torch.device(device)
        workers = workers or (own_cores() if device.type == "cpu" else 1)
        workers = min(workers, len(names))
        settings = EncodeSettings(codec, flip, batch_size, device, max(own_cores() // workers, 1))
        label = "encode" if world_size == 1 else f"encode (process {rank} of {world_size})"
        order = sorted(range(len(names)), key=lambda number: (number - rank) % world_size)
        with tqdm(desc=label, total=images.count, unit="image") as progress:
            manifest = _Encoding(images, folder, settings, workers, progress).run(order, wait)
    if manifest is not None:
        _check_skipped(manifest, images, folder, max_skipped, quiet=wait and rank > 0)
    return manifest


class _Encoding:
    """The part of the work that this process does, in threads that take whole shards.

    The codec and the decoders compute outside Python's global lock, so threads scale.
    """

    def __init__(
        self,
        images: ShardSet,
        folder: ShardFolder,
        settings: EncodeSettings,
        workers: int,
        progress: tqdm,
    ) -> None:
        if isinstance(settings.codec, nn.Module):
            settings.codec.to(settings.device)
        self._images = images
        self._folder = folder
        self._settings = settings
        self._workers = workers
        self._progress = progress
        self._lock = Lock()
        self._stop = Event()
        self._failed: dict[int, ShardError] = {}

    def run(self, order: list[int], wait: bool) -> Manifest | None:
        """Encode what is left, in this order; None where other processes hold the rest."""
        left = order
        # The codec switches global settings: around all threads, so that none undoes another's.
        with full_float32(self._settings.device), _threads(self._settings.threads):
            while (manifest := self._folder.manifest()) is None:
                left = self._unfinished(left)
                self._encode(left)
                left = self._unfinished(left)
                if not left:
                    manifest = self._folder.finish(self._manifest)
                    left = order
                elif failed := [self._failed[n] for n in sorted(left) if n in self._failed]:
                    raise ShardError.of_several(failed)
                elif not wait:
                    break
                else:
                    self._progress.set_postfix_str(f"waiting for {len(left)} shards")
                    time.sleep(POLL_SECONDS)
        return manifest

    def _unfinished(self, numbers: list[int]) -> list[int]:
        left = [n for n in numbers if self._folder.part(self._folder.names[n]) is None]
        self._progress.total = self._progress.n + sum(self._images.shards[n].count for n in left)
        self._progress.refresh()
        return left

    def _encode(self, numbers: list[int]) -> None:
        shared = iter(numbers)
        with ThreadPoolExecutor(self._workers) as pool:
            working = {pool.submit(self._work, shared) for _ in range(self._workers)}
            try:
                while working:  # waking now and then: a signal that another thread got waits for it
                    done, working = futures.wait(working, POLL_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                self._stop.set()  # the others finish the shard that they are at
                raise

    def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if self._stop.is_set():
                return
            with self._folder.claim(self._folder.names[number]) as mine:
                if mine:
                    try:
                        self._encode_shard(number)
                    except ShardError as error:
                        self._failed[number] = error

    def _encode_shard(self, number: int) -> None:
        name = self._folder.names[number]
        codes = ShardCodes(self._images.shards[number], self._settings, self._count)
        members = codes.members()
        first = next(members, None)
        written = None if first is None else chain([first], members)
        self._folder.write(name, written, codes.notes)

    def _count(self, images: int) -> None:
        with self._lock:
            self._progress.update(images)

    def _manifest(self, parts: list[Part]) -> Manifest:
        entries = [part.entry for part in parts if part.entry is not None]
        skipped = [entry for part in parts for entry in part.skips]
        sizes = [(part.facts["size"], part.entry.name) for part in parts if part.entry is not None]
        for size, name in sizes:
            if size != sizes[0][0]:
                raise several_sizes(sizes[0][0], size, name)
        codec = self._settings.codec
        manifest = Manifest(
            "codes",
            sum(entry.count for entry in entries),
            self._images.name,
            entries,
            skipped,
            fingerprint=codec.fingerprint,
            shape=list(codec.latent_shape(*sizes[0][0])) if sizes else None,
            variants=self._settings.variants,
        )
        if not entries:
            _check_skipped(manifest, self._images, self._folder, 1.0, quiet=True)
        return manifest


def _check_arguments(
    images: ShardSet, batch_size: int, workers: int | None, rank: int, world_size: int
) -> None:
    if images.kind != "images" or batch_size < 1 or not (workers is None or workers >= 1):
        raise InputError(
            f"Expected image shards and a batch_size and workers of at least 1, got {images.kind}"
            f" in {images.name}, {batch_size} and {workers}."
        )
    if not 0 <= rank < world_size:
        raise InputError(f"Expected a rank from 0 to {world_size - 1}, got {rank}.")


def _check_skipped(
    manifest: Manifest, images: ShardSet, folder: ShardFolder, max_skipped: float, quiet: bool
) -> None:
    skips = SkipLog()
    for entry in manifest.skipped:
        skips.add(entry["name"], entry["reason"], entry.get("count", 1))
    total = max(images.count, manifest.count + skips.count)
    skips.check(manifest.count, total, max_skipped, f"What is written stays in {folder.folder}.")
    if skips.count and not quiet:
        tqdm.write(f"Skipped {skips.count} images:\n{skips.summary()}", file=sys.stderr)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let each thread of this process compute with so many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
