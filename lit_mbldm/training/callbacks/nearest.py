"""The copy check: which samples are nearly a training image, and pictures of the pairs."""

import math
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data import ShardDataModule
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.data.shards.patterns import validation_part
from lit_mbldm.metrics.nearest import (
    FIXED_RATIO,
    NEIGHBOURS,
    NearestImages,
    average,
    copy_threshold,
)
from lit_mbldm.parallel.ranks import gather_rows, is_first
from lit_mbldm.pictures import table
from lit_mbldm.training.diffusion import DiffusionModule

CHECKED = 2000  # samples, and held-out images, at most
_SIDE = 128  # of the images that are kept, at most
_CODES = 1 << 23  # bytes of an index; decoding them takes seconds


@dataclass(frozen=True)
class CopyCheck:
    """The nearest training image of each of N samples; a copy's ratio is at most `threshold`.

    Attributes:
        samples: (N, 3, h, w) uint8, as `shrink` makes them.
        nearest: training images of the same shape.
        ratios: as of `NearestImages`, (N,) float32.
        held_out: the ratios of M held-out images, (M,) float32; none where there are no such.
    """

    samples: Tensor
    nearest: Tensor
    ratios: Tensor
    held_out: Tensor

    @property
    def threshold(self) -> float:
        """1 % of the held-out images are at or below it; 0.5 where there are none."""
        return copy_threshold(self.held_out) if len(self.held_out) else FIXED_RATIO

    def shares(self) -> dict[str, float | None]:
        """Shares of `copies` among samples and, where there are any, `held_out_copies`."""
        copies, others = (
            (ratios <= self.threshold).float().mean().item() if len(ratios) else None
            for ratios in (self.ratios, self.held_out)
        )
        return {"copies": copies, "held_out_copies": others}

    def told(self) -> str:
        """The share of copies, for people."""
        share, held_out = self.shares().values()
        if held_out is None:
            return f"{share:.1%} (at most {FIXED_RATIO:g} as far as the next {NEIGHBOURS - 1})"
        return f"{share:.1%} (held-out: {held_out:.1%})"

    def picture(self, most: int) -> Image:
        """Pairs of a sample and its nearest training image, the most suspicious first."""
        first = self.ratios.argsort()[:most]
        pairs = torch.stack([self.samples[first], self.nearest[first]], 1)  # (n, 2, 3, h, w)
        columns = math.ceil(math.sqrt(len(first) / 2))
        rows = math.ceil(len(first) / columns)
        sheet = torch.full((rows * columns, *pairs.shape[1:]), 255, dtype=torch.uint8)
        sheet[: len(first)] = pairs
        shown = sheet.view(rows, 2 * columns, *pairs.shape[2:])
        return table(shown, columns=["sample", "nearest"] * columns)


@torch.inference_mode()
def check_copies(
    samples: Tensor,
    training: ReferenceSet,
    held_out: ReferenceSet | None,
    codec: ImageCodec,
    device: torch.device,
) -> CopyCheck:
    """Compare samples, (N, 3, h, w) uint8, the same in every process, with a training set.

    Each process reads its share of both sets, once.
    """
    N, others = len(samples), samples[:0]
    if held_out is not None:
        own = [shrink(images).cpu() for images in held_out.images(codec, device)]
        others = gather_rows(torch.cat([others.cpu(), *own]), device)
    search = NearestImages(torch.cat([samples, others]).to(device))
    for images in training.images(codec, device, "copies"):
        search.add(shrink(images))
    search.merge(
        gather_rows(search.distances[None], device), gather_rows(search.nearest[None, :N], device)
    )
    check = CopyCheck(samples, search.nearest, *search.ratios().tensor_split([N]))
    middle = float(check.held_out.nanmedian())
    if middle <= FIXED_RATIO and is_first():
        warnings.warn(
            "Most held-out images have a near copy among the training images: the nearest lies at"
            f" {middle:.2f} of the next ones' distance, that of the samples at"
            f" {float(check.ratios.nanmedian()):.2f}, so that only closer copies are found. Are the"
            " held-out images others, and of other objects?",
            stacklevel=2,
        )
    return check


def check_with_shards(model: DiffusionModule, samples: Tensor, shards: str) -> CopyCheck:
    """Compare samples (N, 3, H, W) uint8 with shards of training images, or of their codes.

    The validation part in the folder of shards tells what is no copy, where it is there.

    Raises:
        InputError: no shards, or shards of another codec.
    """
    data = _data(model, shards)
    held_out = data.reference(CHECKED) if validation_part(shards) else None
    training = data.training_set()
    return check_copies(shrink(samples), training, held_out, model.codec, model.device)


@torch.inference_mode()
def training_codes(model: DiffusionModule, shards: str) -> Tensor:
    """The model's codes of images in shards, (M, S, h, w) uint8: as many as 8 MiB hold.

    Of more it takes the first of each shard. Raises InputError as `check_with_shards` does.
    """
    found = _data(model, shards).training_set(_CODES // math.prod(model.codes_shape))
    rows = [batch[found.kind] for batch in tqdm(found.batches, desc="index", unit="batch")]
    if found.kind == "images":
        rows = [model.codec.encode(images.to(model.device)).cpu() for images in rows]
    return torch.cat(rows)


def _data(model: DiffusionModule, shards: str) -> ShardDataModule:
    data = ShardDataModule(shards, image_size=model.image_size)
    vars(data)["trainer"] = SimpleNamespace(lightning_module=model)  # whose codec reads the codes
    return data


def shrink(images: Tensor) -> Tensor:
    """Average images (N, 3, H, W) uint8 down to 128 pixels at most on the longer side."""
    longest = max(images.shape[2:])
    if longest <= _SIDE:
        return images
    size = images.shape[2] * _SIDE // longest, images.shape[3] * _SIDE // longest
    return average(images, size).round().byte()
