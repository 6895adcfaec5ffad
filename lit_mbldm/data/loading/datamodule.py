"""ShardDataModule: streams tar shards of images or of codes."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from lit_mbldm.data.loading.encoding import EncodingDataModule, ReferenceSet
from lit_mbldm.data.loading.in_memory import MemoryStream, StoredCodes, load_codes
from lit_mbldm.data.loading.loader import EpochLoader
from lit_mbldm.data.loading.streams import ShardStream, ShuffledStream
from lit_mbldm.data.prepare.encode import cached_codes
from lit_mbldm.data.shards.labels import common_classes
from lit_mbldm.data.shards.locate import ShardSet, open_shards
from lit_mbldm.data.shards.patterns import validation_part
from lit_mbldm.data.shards.reading import Variants, code_variants, image_variants
from lit_mbldm.data.shards.tar import describe
from lit_mbldm.errors import InputError, check_numbers
from lit_mbldm.parallel.ranks import all_equal, from_first


class ShardDataModule(EncodingDataModule):
    """Streams tar shards of images or of codes.

    The model receives `{"codes": uint8 (B, S, h, w)}`, for image shards with
    `"images": uint8 (B, 3, H, W)` beside it, for labelled shards with `"label": int64 (B,)`.

    Args:
        train: folder of shards, tar, glob or brace pattern, local or a URL, or a list of them; or
            `fruits`, a small set that ships.
        val: the same for validation; read in order and completely. None takes the folder `val` in
            the folder `train`, where `lit-mbldm shards --val` made one.
        batch_size: samples a batch and process.
        num_workers: reading processes a loader.
        image_size: crop and resize images to this side; None takes them as they are.
        horizontal_flip: mirror half of the training images (of code shards where the flipped
            image's codes are stored).
        cache_dir: folder to keep the codes of image shards in: all processes encode them before
            training, once for each codec. None encodes each batch anew.
        in_memory: keep all training codes in each process's memory: 24,576 bytes a 512×512 image,
            twice that with `horizontal_flip`.
        max_skipped: largest tolerated fraction of a process's samples of an epoch that cannot be
            read.
        seed: of order and mirroring, with the epoch.
    """

    def __init__(
        self,
        train: str | list[str],
        val: str | list[str] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        image_size: int | None = None,
        horizontal_flip: bool = True,
        cache_dir: str | None = None,
        in_memory: bool = False,
        max_skipped: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_numbers(1, batch_size=batch_size, image_size=image_size)
        check_numbers(0, num_workers=num_workers)
        if image_size is not None and cache_dir is not None:
            raise InputError(
                "image_size and cache_dir exclude each other. Write shards of that size with"
                " `lit-mbldm shards --size`."
            )
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip
        self.cache_dir = cache_dir
        self.in_memory = in_memory
        self.max_skipped = max_skipped
        self.seed = seed
        self._train_shards: ShardSet | None = None
        self._val_shards: ShardSet | None = None
        self._stored: StoredCodes | None = None
        self._fingerprint = ""

    def setup(self, stage: str | None = None) -> None:
        """Find the shards, check them against the model's codec, encode and load what is asked for.

        Raises InputError for a pattern that matches nothing, shards of another codec, images of a
        size it cannot encode, images where codes are needed, too many unreadable samples, a cache
        that cannot be written, shards of other classes, or other samples in other processes.
        """
        if stage in (None, "fit"):
            shards = self._train_shards = self._codes_of(self.train, self.horizontal_flip)
            if self.in_memory and self._stored is None:
                self._stored = self._load(shards)
            versions = json.dumps(shards.versions()).encode()
            self._fingerprint = from_first(hashlib.sha256(versions).hexdigest(), self.device)
        if (val := self.val or validation_part(self.train)) is not None:
            self._val_shards = self._codes_of(val, False)
        opened = [shards for shards in (self._train_shards, self._val_shards) if shards]
        classes = common_classes({shards.name: shards.classes for shards in opened})
        self.class_names = None if classes is None else [*classes]

    def train_dataloader(self) -> EpochLoader:
        """Shuffled full batches; (seed, epoch) decides their order."""
        shards, workers = self._train_shards, self.num_workers
        assert shards is not None
        share = self.share(horizontal_flip=self.horizontal_flip, fingerprint=self._fingerprint)
        stream: MemoryStream | ShuffledStream
        if self._stored is not None:
            stream, workers = MemoryStream(self._stored, shards.name, share), 0
        else:
            stream = ShuffledStream(shards, self._variants(shards), share)
        epoch, move = self.current_epoch, self.move_to_batch
        return EpochLoader(stream, epoch, workers, self.max_skipped, move)

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Every validation sample once, in order; an empty list without any."""
        if self._val_shards is None:
            return []
        shards, (_, world_size) = self._val_shards, self.place
        if shards.count < world_size:
            raise InputError(
                f"Expected a sample for each of {world_size} processes in {shards.name}, got"
                f" {shards.count}. Name more shards for val, or none (null)."
            )
        return self._in_order(shards)

    def reference(self, max_images: int | None = None) -> ReferenceSet:
        """The held-out images for scores: `val`, in order, at most so many of it.

        Raises InputError where there is none, or where a shard of it is one of `train`.
        """
        val = self.val or validation_part(self.train)
        if val is None:
            raise InputError(
                "Scores compare with held-out images, never with those trained on, but the data"
                " has no val. Keep some apart with `lit-mbldm shards --val 0.1`, or name shards of"
                " other images with --data.val or --score.reference."
            )
        held_out = self._open(val)
        trained = self._open(self.train).versions() if self.train else []
        shared = {version for version, *_ in trained} & {v for v, *_ in held_out.versions()}
        if shared:
            raise InputError(
                f"Scores compare with held-out images, but {len(shared)} of the shards in"
                f" {held_out.name} are trained on. Name others for val."
            )
        return self._reference_set(held_out, max_images, "held-out")

    def training_set(self, max_images: int | None = None) -> ReferenceSet:
        """The training set for scores: in order, without flips, at most so many of it."""
        return self._reference_set(self._open(self.train), max_images, "training")

    def _reference_set(self, whole: ShardSet, max_images: int | None, part: str) -> ReferenceSet:
        shards = whole.first_of_each(max_images)
        fingerprint = {"shards": shards.versions(), "image_size": self.image_size}
        batches = self._in_order(shards)
        name = f"{part} images" if shards.kind == "images" else f"decoded {part} codes"
        first = batches.stream.start
        return ReferenceSet(shards.kind, fingerprint, shards.count, first, batches, name)

    def _in_order(self, shards: ShardSet) -> EpochLoader:
        stream = ShardStream(shards, self._variants(shards), self.share(full=False))
        return EpochLoader(stream, lambda: 0, self.num_workers, self.max_skipped)

    def _open(self, patterns: str | list[str]) -> ShardSet:
        shards = open_shards(patterns)
        if self.codec is not None:
            fingerprint = self.codec.fingerprint
            if shards.tag is not None and shards.tag.fingerprint != fingerprint:
                raise InputError(
                    f"Expected codes of the codec {fingerprint[:12]}…, but {shards.name} holds"
                    f" {describe(shards.tag)}. Encode the images again with `lit-mbldm encode`, or"
                    " name the codec that made the shards."
                )
            size = self.image_size or shards.size
            if shards.kind == "images" and size is not None:
                self.codec.latent_shape(size, size)
        return shards

    def _codes_of(self, patterns: str | list[str], flip: bool) -> ShardSet:
        """The shards or, where a cache is wanted for images, those of their codes."""
        shards = self._open(patterns)
        if self.cache_dir is not None and self.codec is not None and shards.kind == "images":
            cache = Path(self.cache_dir)
            folder = cached_codes(shards, self.codec, cache, flip, self.device, *self.place)
            shards = self._open(str(folder))
        self._check_processes(shards, [(shard.name, shard.count) for shard in shards.shards])
        return shards

    def _load(self, shards: ShardSet) -> StoredCodes:
        if shards.kind != "codes":
            raise InputError(
                f"in_memory keeps codes, but {shards.name} holds images. Encode them with"
                " `lit-mbldm encode`, or set cache_dir to have them encoded first."
            )
        variants, copies = self._variants(shards), getattr(self.trainer, "num_devices", 1)
        stored = load_codes(shards, variants, self.horizontal_flip, self.max_skipped, copies)
        self._check_processes(shards, stored.index.tolist())
        return stored

    def _check_processes(self, shards: ShardSet, found: list[Any]) -> None:
        if not all_equal(hashlib.sha256(repr(found).encode()).hexdigest()):
            raise InputError(
                f"The processes do not find the same samples in {shards.name}: process"
                f" {self.place[0]} finds {shards.count}. Copy the shards to all nodes again."
            )

    def _variants(self, shards: ShardSet) -> Variants:
        if shards.tag is None:
            return partial(image_variants, image_size=self.image_size)
        K = getattr(self.codec, "codebook_size", 256)
        return partial(code_variants, shape=shards.tag.shape, codebook_size=K)
