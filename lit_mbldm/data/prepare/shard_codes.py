"""One shard of images to the members of a shard of codes.

B images, V variants (the image, its mirror image), S code channels, h×w patches.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_mbldm.data.shards.manifest import FORMAT
from lit_mbldm.data.shards.reading import (
    LostShardError,
    Sample,
    Shard,
    dump_codes,
    image_variants,
    read_span,
    whole,
)
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar import CODEC_MEMBER
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError


class Codec(Protocol):
    """What the data needs of a codec; every `lit_mbldm.codecs.ImageCodec` is one."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the codec's arrays."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to uint8 (B, S, h, w)."""

    def decode(self, codes: Tensor) -> Tensor:
        """uint8 (B, S, h, w) to uint8 (B, 3, H, W)."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(S, h, w); raises InputError for a size that does not fit."""


@dataclass(frozen=True)
class EncodeSettings:
    """How shards are encoded: V variants an image; so many threads read the images of one shard.

    `labels` gives the labels of images (B, 3, H, W) uint8 that have none.
    """

    codec: Codec
    variants: int
    batch_size: int
    device: torch.device
    threads: int
    labels: Callable[[Tensor], list[int]] | None = None

    def members(self, samples: list[Sample], images: Tensor) -> Iterator[tuple[str, bytes]]:
        """`<key>.npy` and, where there are labels, `<key>.cls` of images (B, 3, H, W) uint8."""
        batch = images.to(self.device)
        with torch.no_grad():
            variants = [self.codec.encode(x) for x in [batch, batch.flip(-1)][: self.variants]]
            labels = self.labels(batch) if self.labels else [s.label for s in samples]
        codes = torch.stack(variants, dim=1).cpu().numpy()  # (B, V, S, h, w)
        for sample, code, label in zip(samples, codes, labels, strict=True):
            yield f"{sample.key}.npy", dump_codes(code)
            if label is not None:
                yield f"{sample.key}.cls", str(label).encode()

    def tag(self, size: Sequence[int]) -> bytes:
        """What `__codec__` holds in a shard of images of this (height, width)."""
        shape = self.codec.latent_shape(size[0], size[1])
        tag = {"format": FORMAT, "fingerprint": self.codec.fingerprint, "shape": shape}
        return json.dumps({**tag, "variants": self.variants}).encode()


def encode_shard(
    shard: Shard,
    settings: EncodeSettings,
    on_batch: Callable[[int], object],
    skips: SkipLog,
    facts: dict[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Give `__codec__`, then the members of each image; nothing where no image can be used.

    `on_batch` is told how many images are done, `skips` what cannot be read, and `facts` get the
    images' `"size"`, (height, width) in pixels. Raises LostShardError where the shard cannot be
    reached or differs from its manifest's sha256, InputError for images of several sizes.
    """
    for samples, images in image_batches(shard, settings, on_batch, skips):
        if "size" not in facts:
            facts["size"] = images.shape[2:]
            yield CODEC_MEMBER, settings.tag(facts["size"])
        yield from settings.members(samples, images)


def image_batches(
    shard: Shard, settings: EncodeSettings, on_batch: Callable[[int], object], skips: SkipLog
) -> Iterator[tuple[list[Sample], Tensor]]:
    """The samples of a shard of images and their images (B, 3, H, W) uint8, as `encode_shard`."""

    def skip(name: str, error: Exception, count: int) -> None:
        if isinstance(error, LostShardError):
            raise error
        skips.add(name, error, count)

    samples, size = read_span(whole(shard), skip), None
    with ThreadPoolExecutor(settings.threads) as pool:
        while batch := list(islice(samples, settings.batch_size)):
            good, images = [], []
            for sample, pixels in zip(batch, pool.map(_decode, batch), strict=True):
                if isinstance(pixels, ImageError):
                    skips.add(sample.name, pixels)
                    continue
                size = size or pixels.shape[1:]
                check_size(size, pixels.shape[1:], sample.name)
                good.append(sample)
                images.append(pixels)
            on_batch(len(batch))
            if images:
                yield good, torch.from_numpy(np.stack(images))


def check_size(expected: Sequence[int], size: Sequence[int], name: str) -> None:
    """Raise InputError where the images in `name` have another (height, width) than expected."""
    if tuple(size) != tuple(expected):
        raise InputError(
            f"Expected images of one size, {expected[1]}×{expected[0]}, but {name} has"
            f" {size[1]}×{size[0]}. Write the shards with `lit-mbldm shards --size`."
        )


def _decode(sample: Sample) -> NDArray[np.uint8] | ImageError:
    folders = re.split(r"[/\\]", sample.key)
    if not folders[0] or ".." in folders:
        return ImageError("its name leads out of the folder that the codes are unpacked in")
    try:
        return image_variants(sample.data)[0]
    except ImageError as error:
        return error
