"""ShardDataModule: image or code shards as batches."""

import hashlib
import json
from pathlib import Path
from zlib import crc32

from lit_mbldm.data.loading.encoding import EncodingDataModule
from lit_mbldm.data.loading.in_memory import MemoryStream, StoredCodes
from lit_mbldm.data.loading.loader import BatchStream, EpochLoader
from lit_mbldm.data.loading.reference import ReferenceSet
from lit_mbldm.data.loading.streams import ShardStream, ShuffledStream
from lit_mbldm.data.prepare.encode import cached_codes
from lit_mbldm.data.shards.locate import ShardSet, open_shards
from lit_mbldm.data.shards.members import CodeReader, ImageReader, SampleReader
from lit_mbldm.data.shards.patterns import validation_part
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import all_equal, from_first


class ShardDataModule(EncodingDataModule):
    """Streams tar shards of images or of codes.

    The model receives `{"codes": uint8 (B, S, h, w)}`, for image shards with
    `"images": uint8 (B, 3, H, W)` beside it.

    Args:
        train: folder of shards, tar, glob or brace pattern, local or a URL, or a list of them.
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
        if batch_size < 1 or num_workers < 0 or (image_size is not None and image_size < 1):
            raise InputError(
                "Expected batch_size and image_size of at least 1 and num_workers of at least 0,"
                f" got {batch_size}, {image_size} and {num_workers}."
            )
        if image_size is not None and cache_dir is not None:
            raise InputError(
                "image_size and cache_dir exclude each other: codes are kept of the shards' images"
                " as they are. Write shards of that size with `lit-mbldm shards --size`."
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

        Raises:
            InputError: a pattern that matches nothing, shards of another codec, images of a
                size the codec cannot encode, images where codes are needed, too many unreadable
                samples, a cache that cannot be written, or other samples in other processes.
        """
        if stage in (None, "fit"):
            self._train_shards = self._codes_of(self._open(self.train), self.horizontal_flip)
            if self.in_memory and self._stored is None:
                self._stored = self._load(self._train_shards)
            self._check_processes(self._train_shards, self._stored)
            versions = json.dumps(self._train_shards.versions())
            fingerprint = hashlib.sha256(versions.encode()).hexdigest()
            self._fingerprint = from_first(fingerprint, self.device)
        if (val := self.val or validation_part(self.train)) is not None:
            self._val_shards = self._codes_of(self._open(val), False)
            self._check_processes(self._val_shards)

    def train_dataloader(self) -> EpochLoader:
        """Shuffled full batches; (seed, epoch) decides their order."""
        assert self._train_shards is not None
        shards, workers = self._train_shards, self.num_workers
        share = self.batch_size, self.rank, self.world_size, self.seed, self._fingerprint
        stream: BatchStream
        if self._stored is not None:
            stream, workers = MemoryStream(self._stored, *share), 0
        else:
            stream = ShuffledStream(shards, self._reader(shards), *share)
        return EpochLoader(
            stream, self.current_epoch, workers, self.max_skipped, self.move_to_batch
        )

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Every validation sample once, in order; an empty list without any."""
        if self._val_shards is None:
            return []
        shards = self._val_shards
        if shards.count < self.world_size:
            raise InputError(
                f"Expected a sample for each of {self.world_size} processes in {shards.name}, got"
                f" {shards.count}. Name more shards for val, or none (null)."
            )
        return EpochLoader(
            self._in_order(shards), self.current_epoch, self.num_workers, self.max_skipped
        )

    def reference(self, max_images: int | None = None) -> ReferenceSet:
        """The training set for scores: in order, without flips, at most so many of it."""
        shards = self._open(self.train).first_of_each(max_images)
        stream = self._in_order(shards)
        return ReferenceSet(
            shards.kind,
            {"shards": shards.versions(), "image_size": self.image_size},
            shards.count,
            stream.start,
            EpochLoader(stream, lambda: 0, self.num_workers, self.max_skipped),
        )

    def _in_order(self, shards: ShardSet) -> ShardStream:
        reader = self._reader(shards)
        return ShardStream(shards, reader, self.batch_size, self.rank, self.world_size)

    def _open(self, patterns: str | list[str]) -> ShardSet:
        shards = open_shards(patterns)
        if self.codec is not None:
            shards.check_fingerprint(self.codec.fingerprint)
            size = self.image_size or shards.size
            if shards.kind == "images" and size is not None:
                self.codec.latent_shape(size, size)
        return shards

    def _codes_of(self, shards: ShardSet, flip: bool) -> ShardSet:
        """The shards of the cache, where one is wanted for image shards."""
        if self.cache_dir is None or self.codec is None or shards.kind == "codes":
            return shards
        folder = cached_codes(
            shards,
            self.codec,
            Path(self.cache_dir),
            flip=flip,
            device=self.device,
            rank=self.rank,
            world_size=self.world_size,
        )
        return self._open(str(folder))

    def _load(self, shards: ShardSet) -> StoredCodes:
        if shards.kind != "codes":
            raise InputError(
                f"in_memory keeps codes, but {shards.name} holds images. Encode them with"
                " `lit-mbldm encode`, or set cache_dir to have them encoded first."
            )
        reader = self._reader(shards)
        assert isinstance(reader, CodeReader)
        copies = self.trainer.num_devices if self.trainer is not None else 1
        return StoredCodes(shards, reader, self.max_skipped, copies)

    def _check_processes(self, shards: ShardSet, stored: StoredCodes | None = None) -> None:
        count = shards.count if stored is None else len(stored.index)
        kept = 0 if stored is None else crc32(stored.index.numpy().tobytes())
        if not all_equal([kept, *((shard.name, shard.count) for shard in shards.shards)]):
            raise InputError(
                f"The processes do not find the same samples in {shards.name}: process {self.rank}"
                f" finds {count}. Copy the shards again to the nodes where some are missing or"
                " damaged."
            )

    def _reader(self, shards: ShardSet) -> SampleReader:
        if shards.tag is None:
            return ImageReader(self.image_size, self.horizontal_flip)
        codebook_size = getattr(self.codec, "codebook_size", 256)
        return CodeReader(shards.tag.shape, self.horizontal_flip, codebook_size)
