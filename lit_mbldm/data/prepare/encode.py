"""Image shards to code shards, by any number of threads, processes and nodes."""

import hashlib
import json
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.data.prepare.clusters import Clusters
from lit_mbldm.data.prepare.shard_codes import Codec, EncodeSettings, check_size, encode_shard
from lit_mbldm.data.prepare.shard_folder import Part, ShardFolder
from lit_mbldm.data.shards.locate import Patterns, ShardSet, open_shards
from lit_mbldm.data.shards.manifest import FORMAT, Manifest
from lit_mbldm.data.shards.patterns import VAL, validation_part
from lit_mbldm.data.shards.reading import LostShardError
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.errors import InputError, check_numbers
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
    clusters: int | None = None,
) -> Manifest:
    """Encode image shards: one `codes-000000.tar` an input shard, and `manifest.json`.

    The validation part in a folder of shards is encoded before, into `out/val`, without flips.

    A sample is `<key>.npy`, uint8 (V, S, h, w), and its label, if any, `<key>.cls`. The first
    member of each shard, `__codec__`, holds the codec's fingerprint and the shape.

    Any number of processes and nodes may do it together, each with its own `rank`: each begins with
    its share of the shards, goes on with those that no other has finished, and returns when all are
    there. What a killed run has finished is not done again. The bytes depend on the images, the
    codec, `flip` and the kind of `device` alone: where two codewords are equally near, a GPU may
    choose another than a CPU.

    What cannot be read of a damaged shard is skipped and counted. A shard that differs from the
    sha256 in its manifest is an error.

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
        clusters: label the images of shards without labels by so many clusters of their own.

    Returns:
        The manifest of `out`, without what is in `out/val`.

    Raises:
        InputError: no image shards, images of a size the codec cannot encode or of several
            sizes, other shards in `out`, clusters of labelled shards or of too few images; once
            the others are written, shards out of reach or that differ from their manifest; once
            all are, more skipped than tolerated.
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
    check_numbers(1, batch_size=batch_size, workers=workers)
    check_numbers(0, world_size - 1, rank=rank)
    device = torch.device(device)
    workers = workers or (own_cores() if device.type == "cpu" else 1)

    train = shards if isinstance(shards, ShardSet) else open_shards(shards)
    found: Clusters | None = None
    if clusters is not None:
        settings = EncodeSettings(codec, 1, batch_size, device, own_cores())
        found = Clusters(train, settings, clusters)

    def encode(images: ShardSet, folder: Path, flip: bool) -> Manifest:
        threads = max(own_cores() // min(workers, len(images.shards)), 1)
        settings = EncodeSettings(codec, 2 if flip else 1, batch_size, device, threads)
        manifest = _Encoding(images, folder, settings, found).run(rank, world_size, workers)
        skips, kept = SkipLog(manifest.skipped), f"What is written stays in {folder}."
        skips.close(manifest.count, "images", max_skipped, kept, images.count, told=rank == 0)
        return manifest

    val = None if isinstance(shards, ShardSet) else validation_part(shards)
    if val is not None:
        encode(open_shards(val), Path(out) / VAL, False)
    return encode(train, Path(out), flip)


def cached_codes(
    images: ShardSet,
    codec: Codec,
    cache: Path,
    flip: bool,
    device: str | torch.device,
    rank: int,
    world_size: int,
) -> Path:
    """The folder in `cache` of these images' codes, encoded first where that is not done yet.

    All processes that need them call this, with a cache of all nodes or one on each node, and
    share the work. Of a complete cache nothing is written. Raises InputError as `encode_shards`,
    in every process, or where codes are missing and the cache cannot be written.
    """
    text = json.dumps([images.versions(), flip, *([images.classes] if images.classes else [])])
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    folder = cache / f"{codec.fingerprint[:16]}-{fingerprint[:16]}"
    options: Any = {"flip": flip, "device": device, "rank": rank, "world_size": world_size}
    try:
        encode_shards(images, folder, codec, **options)
    except OSError as error:
        raise InputError(
            f"The cache {folder} does not hold all codes of {images.name}, and cannot be written:"
            f" {error}. Name a cache folder that can be, or train on the shards that `lit-mbldm"
            " encode` writes."
        ) from error
    return folder


class _Encoding:
    """The shards of one folder, encoded in threads, since codec and Pillow free Python's lock."""

    def __init__(
        self, images: ShardSet, out: Path, settings: EncodeSettings, clusters: Clusters | None
    ) -> None:
        if images.kind != "images":
            raise InputError(f"Expected image shards, got {images.kind} in {images.name}.")
        if images.size is not None:
            settings.codec.latent_shape(images.size, images.size)
        recipe: dict[str, Any] = {
            "format": FORMAT,
            "codec": settings.codec.fingerprint,
            "flip": settings.variants == 2,
            "image shards": images.versions(),
        }
        classes = images.classes if clusters is None else clusters.names
        if classes is not None:
            recipe["classes"] = [*classes]
        self._names = [f"codes-{number:06d}.tar" for number in range(len(images.shards))]
        self._images = images
        self._folder = ShardFolder(out, self._names, recipe)
        self._settings = settings if clusters is None else replace(settings, labels=clusters.assign)
        self._clusters = clusters
        self._classes = classes
        self._lost: dict[str, str] = {}  # why, by name of the code shard
        self._progress = tqdm(disable=True)

    def run(self, rank: int, world_size: int, workers: int) -> Manifest:
        """Encode what is not finished, this process's share first."""
        if (manifest := self._folder.manifest()) is not None:
            return manifest
        if isinstance(codec := self._settings.codec, nn.Module):
            codec.to(self._settings.device)
        if self._clusters is not None:
            self._clusters.fit()
        todo = [n for n, name in enumerate(self._names) if not self._folder.has(name)]
        left = sum(self._images.shards[number].count for number in todo)
        Random().shuffle(todo)  # so that processes seldom encode the same shard at once
        todo.sort(key=lambda number: number % world_size != rank)
        label = "encode" if world_size == 1 else f"encode (process {rank} of {world_size})"
        total = self._images.count
        with tqdm(desc=label, total=total, initial=total - left, unit="image") as self._progress:
            self._encode_all(todo, workers)
        lost = [why for name, why in sorted(self._lost.items()) if not self._folder.has(name)]
        if lost:
            lines = "\n  ".join(["Image shards that cannot be encoded:", *lost])
            raise InputError(
                f"{lines}\nWhat is finished is kept; run the same command again when they can be"
                " read."
            )
        return self._folder.finish("codes", self._images.name, self._describe)

    def _encode_all(self, todo: list[int], workers: int) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        # both switch global settings: around all workers, so that none undoes another's
        with full_float32(self._settings.device), ThreadPoolExecutor(workers) as pool:
            pending = {pool.submit(self._encode, number) for number in todo}
            try:
                while pending:  # waking now and then: a signal that another thread got waits for it
                    done, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
            finally:  # after an error the others finish the shard that they are at
                pool.shutdown(wait=False, cancel_futures=True)
                torch.set_num_threads(threads)

    def _encode(self, number: int) -> None:
        shard, name = self._images.shards[number], self._names[number]
        if self._folder.has(name):
            self._progress.update(shard.count)
            return
        skips, facts = SkipLog(), dict[str, Any]()
        members = encode_shard(shard, self._settings, self._progress.update, skips, facts)
        try:
            self._folder.write(name, members, skips, facts)
        except LostShardError as error:
            self._lost[name] = f"{shard.name} {error}"

    def _describe(self, parts: list[Part]) -> dict[str, Any]:
        sizes = [(part.facts["size"], part.entry.name) for part in parts if part.entry is not None]
        for size, name in sizes:
            check_size(sizes[0][0], size, name)
        codec, variants = self._settings.codec, self._settings.variants
        shape = list(codec.latent_shape(*sizes[0][0])) if sizes else None
        facts = {"fingerprint": codec.fingerprint, "shape": shape, "variants": variants}
        return facts | {"classes": self._classes}
