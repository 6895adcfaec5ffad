"""CropDataModule: random crops of a handful of photographs."""

import hashlib
import random
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mbldm.data.loading.encoding import EncodingDataModule, ReferenceSet
from lit_mbldm.data.loading.loader import EpochLoader
from lit_mbldm.data.loading.streams import IndexedStream, Share
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.errors import InputError, check_numbers
from lit_mbldm.images import resize_square, to_array

VALIDATION_CROPS = 64


class CropDataModule(EncodingDataModule):
    """Random square crops of the photographs in a folder, which are kept decoded in memory.

    The model receives `{"images": uint8 (B, 3, C, C), "codes": uint8 (B, S, h, w)}`.

    Args:
        folder: of photographs, searched recursively; None takes those in the package.
        crop_size: side C of a crop in pixels.
        batch_size: crops a batch and process.
        crops_per_epoch: of all processes together.
        zoom_out: a crop covers crop_size times this many pixels of the photograph.
        stride: crops begin at multiples of this many pixels of the photograph; zoom_out times
            the codec's patch size gives each one grid of codes, learned sooner than all shifts.
        horizontal_flip: mirror half of the crops.
        num_workers: cropping processes.
        seed: with the epoch and the crop's number it decides each crop.
    """

    def __init__(
        self,
        folder: str | None = None,
        crop_size: int = 96,
        batch_size: int = 64,
        crops_per_epoch: int = 6400,
        zoom_out: float = 1.0,
        stride: int = 1,
        horizontal_flip: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_numbers(1, crop_size=crop_size, batch_size=batch_size)
        check_numbers(1, stride=stride, zoom_out=zoom_out)
        check_numbers(0, num_workers=num_workers)
        self.folder = folder
        self.batch_size = batch_size
        self.crops_per_epoch = crops_per_epoch
        self.num_workers = num_workers
        self.seed = seed
        self.cropper = Cropper([], crop_size, zoom_out, stride, horizontal_flip, seed)

    def setup(self, stage: str | None = None) -> None:
        """Decode the photographs; raises InputError where they or the crop size do not fit."""
        size = self.cropper.crop_size
        if self.codec is not None:
            self.codec.latent_shape(size, size)
        if self.cropper.photos:
            return
        folder = self.folder or str(resources.files("lit_mbldm.data") / "photos")
        photos, side = read_images(folder), size * self.cropper.zoom_out
        for name, photo in photos.items():
            if min(photo.size) < side:
                raise InputError(
                    f"Expected photographs of at least {side:g}×{side:g} pixels, but {name} has"
                    f" {photo.width}×{photo.height}. Lower crop_size or zoom_out, or remove it."
                )
        self.cropper = replace(self.cropper, photos=list(photos.values()))

    def train_dataloader(self) -> EpochLoader:
        """Full batches of random crops, others each epoch."""
        stream = CropStream(self.cropper, self.crops_per_epoch, self.share())
        return EpochLoader(stream, self.current_epoch, self.num_workers, move=self.move_to_batch)

    def val_dataloader(self) -> EpochLoader:
        """64 crops, the same in every epoch and process."""
        share = Share(self.batch_size, full=False)
        return EpochLoader(CropStream(self.cropper, VALIDATION_CROPS, share), lambda: -1)

    def reference(self, max_images: int | None = None) -> ReferenceSet:
        """The crops of the first epoch for scores, without flips, at most so many of them.

        No photographs are kept apart, as the set's name says.
        """
        self.setup()
        count = min(self.crops_per_epoch, max_images or self.crops_per_epoch)
        cropper = replace(self.cropper, horizontal_flip=False)
        fingerprint = {
            "crops": [cropper.crop_size, cropper.zoom_out, cropper.stride, self.seed, count],
            "photos": [hashlib.sha256(photo.tobytes()).hexdigest() for photo in cropper.photos],
            "sizes": [photo.size for photo in cropper.photos],
        }
        stream = CropStream(cropper, count, self.share(full=False))
        batches = EpochLoader(stream, lambda: 0, self.num_workers)
        name = "crops of the training photographs"
        return ReferenceSet("images", fingerprint, count, stream.start, batches, name)


@dataclass(frozen=True)
class Cropper:
    """Crops (3, C, C) uint8; the fields are CropDataModule's, no photograph is below a crop."""

    photos: list[Image.Image]
    crop_size: int
    zoom_out: float
    stride: int
    horizontal_flip: bool
    seed: int

    def __call__(self, epoch: int, index: int) -> Tensor:
        """Crop number `index`, decided by (seed, epoch, index)."""
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        photo = rng.choice(self.photos)
        side = round(self.crop_size * self.zoom_out)
        left = rng.randrange(0, photo.width - side + 1, self.stride)
        top = rng.randrange(0, photo.height - side + 1, self.stride)
        crop = to_array(resize_square(photo, (left, top, left + side, top + side), self.crop_size))
        flipped = crop[:, :, ::-1] if self.horizontal_flip and rng.random() < 0.5 else crop
        return torch.from_numpy(np.ascontiguousarray(flipped))


class CropStream(IndexedStream):
    """Batches of an epoch's crops `{"images": uint8 (B, 3, C, C), "index": int64 (B,)}`."""

    def __init__(self, cropper: Cropper, count: int, share: Share) -> None:
        super().__init__("crops_per_epoch", count, share)
        self.cropper = cropper

    def batch(self, places: range) -> dict[str, Tensor]:
        """The crops of these numbers."""
        crops = torch.stack([self.cropper(self.epoch, number) for number in places])
        return {"images": crops, "index": torch.tensor(places)}
