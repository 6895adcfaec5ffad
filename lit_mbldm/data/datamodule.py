"""ShardDataModule: image or code shards as batches."""

from lit_mbldm.data.decoders import CodeDecoder, Decoder, ImageDecoder
from lit_mbldm.data.encoding import EncodingDataModule
from lit_mbldm.data.loader import EpochLoader
from lit_mbldm.data.locate import ShardSet, open_shards
from lit_mbldm.data.reference import ReferenceSet, first_of_each, shards_identity
from lit_mbldm.data.streams import ShardStream, ShuffledStream
from lit_mbldm.errors import InputError


class ShardDataModule(EncodingDataModule):
    """Streams tar shards of images or of codes.

    The model receives `{"codes": uint8 (B, S, h, w)}`, for image shards with
    `"images": uint8 (B, 3, H, W)` beside it.

    Args:
        train: local folder of shards, tar, glob or brace pattern, or a list of them.
        val: the same for validation; read in order and completely.
        batch_size: samples a batch and process.
        num_workers: reading processes a loader.
        image_size: crop and resize images to this side; None takes them as they are.
        horizontal_flip: mirror half of the training images (of code shards where the flipped
            image's codes are stored).
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
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0 or (image_size is not None and image_size < 1):
            raise InputError(
                "Expected batch_size and image_size of at least 1 and num_workers of at least 0,"
                f" got {batch_size}, {image_size} and {num_workers}."
            )
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip
        self.seed = seed
        self._train_shards: ShardSet | None = None
        self._val_shards: ShardSet | None = None

    def setup(self, stage: str | None = None) -> None:
        """Find the shards and check them against the model's codec.

        Raises:
            InputError: a pattern that matches nothing, shards of another codec, or images of a
                size the codec cannot encode.
        """
        if stage in (None, "fit"):
            self._train_shards = self._open(self.train)
        if self.val is not None:
            self._val_shards = self._open(self.val)

    def train_dataloader(self) -> EpochLoader:
        """Shuffled full batches; (seed, epoch) decides their order."""
        assert self._train_shards is not None
        shards = self._train_shards
        decoder = self._decoder(shards)
        stream = ShuffledStream(
            shards, decoder, self.batch_size, self.rank, self.world_size, self.seed
        )
        return EpochLoader(stream, self.current_epoch, self.num_workers)

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Every validation sample once, in order; an empty list without `val`."""
        if self._val_shards is None:
            return []
        decoder = self._decoder(self._val_shards)
        stream = ShardStream(self._val_shards, decoder, self.batch_size, self.rank, self.world_size)
        return EpochLoader(stream, self.current_epoch, self.num_workers)

    def reference(self, max_images: int | None = None) -> ReferenceSet:
        """The training set for scores: in order, without flips, at most so many of it."""
        shards = first_of_each(self._train_shards or self._open(self.train), max_images)
        decoder = self._decoder(shards)
        stream = ShardStream(shards, decoder, self.batch_size, self.rank, self.world_size)
        return ReferenceSet(
            shards.kind,
            {"shards": shards_identity(shards), "image_size": self.image_size},
            shards.count,
            shards.count * self.rank // self.world_size,
            EpochLoader(stream, lambda: 0, self.num_workers),
        )

    def _open(self, patterns: str | list[str]) -> ShardSet:
        shards = open_shards(patterns)
        if self.codec is not None:
            shards.check_fingerprint(self.codec.fingerprint)
            size = self.image_size or shards.size
            if shards.kind == "images" and size is not None:
                self.codec.latent_shape(size, size)
        return shards

    def _decoder(self, shards: ShardSet) -> Decoder:
        if shards.tag is not None:
            return CodeDecoder(shards.tag.shape, self.horizontal_flip)
        return ImageDecoder(self.image_size, self.horizontal_flip)
