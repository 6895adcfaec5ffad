"""One shard of images to the members of a shard of codes.

B images, V variants (the image, its mirror image), S code channels, h×w patches.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lit_mbldm.data.prepare.codec import Codec
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
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError


class _Decoded(NamedTuple):
    key: str
    pixels: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[2]


class ShardError(InputError):
    """A shard that cannot be encoded now, with its name and the reason; others can be."""

    @staticmethod
    def of_several(errors: "list[ShardError]") -> InputError:
        """The error of all shards that failed, once the others are written."""
        lines = "".join(f"\n  {error}" for error in errors)
        return InputError(
            f"Image shards that cannot be encoded:{lines}\nWhat is finished is kept; run the same"
            " command again when they can be read."
        )


@dataclass(frozen=True)
class EncodeSettings:
    """How shards are encoded.

    Attributes:
        codec: on `device`.
        flip: V = 2: also encode each image flipped horizontally; else V = 1.
        batch_size: images a batch.
        device: of the codec.
        threads: that decode the images of one shard.
    """

    codec: Codec
    flip: bool
    batch_size: int
    device: torch.device
    threads: int

    @property
    def variants(self) -> int:
        """V."""
        return 2 if self.flip else 1


class ShardCodes:
    """The codes of one shard of images.

    What cannot be read of it is skipped and noted. A shard that differs from its manifest's sha256
    is an error, as nobody can see which images are damaged.

    Args:
        shard: of images of one size.
        settings: of the encoding.
        on_batch: called with the number of images of each batch.

    Attributes:
        skips: what cannot be used.
        size: (height, width) of the images in pixels, None before the first.
    """

    def __init__(
        self, shard: Shard, settings: EncodeSettings, on_batch: Callable[[int], None]
    ) -> None:
        self.skips = SkipLog()
        self.size: tuple[int, int] | None = None
        self._shard = shard
        self._settings = settings
        self._on_batch = on_batch
        self._failure: Exception | None = None

    def members(self) -> Iterator[tuple[str, bytes]]:
        """`__codec__`, then `<key>.npy` of each image; nothing where no image can be used.

        Raises:
            ShardError: the shard cannot be reached, or differs from its manifest.
            InputError: images of several sizes.
        """
        for batch in self._batches():
            if self.size is None:
                self.size = batch[0].size
                yield CODEC_MEMBER, self._tag()
            for item in batch:
                if item.size != self.size:
                    raise several_sizes(self.size, item.size, f"{self._shard.name}/{item.key}")
            codes = self._codes(batch)
            for item, variants in zip(batch, codes, strict=True):
                yield f"{item.key}.npy", dump_codes(variants)
        if self._failure is not None:
            raise ShardError(f"{self._shard.name} {self._failure}") from self._failure

    def notes(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What was skipped, and the images' size, of JSON's types."""
        return self.skips.entries, {"size": self.size}

    def _batches(self) -> Iterator[list[_Decoded]]:
        samples = read_span(whole(self._shard), self._skip)
        with ThreadPoolExecutor(self._settings.threads) as pool:
            while batch := list(islice(samples, self._settings.batch_size)):
                usable = []
                for sample, result in zip(batch, pool.map(_decode, batch), strict=True):
                    if isinstance(result, ImageError):
                        self.skips.add(sample.name, result)
                    else:
                        usable.append(result)
                self._on_batch(len(batch))
                if usable:
                    yield usable

    def _skip(self, name: str, error: Exception, count: int) -> None:
        if isinstance(error, LostShardError):
            self._failure = error
        else:
            self.skips.add(name, error, count)

    def _tag(self) -> bytes:
        assert self.size is not None
        fields = {
            "format": FORMAT,
            "fingerprint": self._settings.codec.fingerprint,
            "shape": self._settings.codec.latent_shape(*self.size),
            "variants": self._settings.variants,
        }
        return json.dumps(fields).encode()

    def _codes(self, batch: list[_Decoded]) -> NDArray[np.uint8]:
        images = torch.from_numpy(np.stack([item.pixels for item in batch]))
        images = images.to(self._settings.device)
        variants = [images, images.flip(-1)][: self._settings.variants]
        with torch.no_grad():
            codes = [self._settings.codec.encode(x) for x in variants]
        return torch.stack(codes, dim=1).cpu().numpy()  # (B, V, S, h, w)


def several_sizes(first: tuple[int, ...], other: tuple[int, ...], name: str) -> InputError:
    """The error of images (height, width) of two sizes."""
    return InputError(
        f"Expected images of one size, {first[1]}×{first[0]}, but {name} has"
        f" {other[1]}×{other[0]}. Write the shards with `lit-mbldm shards --size`."
    )


def _decode(sample: Sample) -> _Decoded | ImageError:
    key = sample.name.partition("/")[2]
    folders = re.split(r"[/\\]", key)
    if not folders[0] or ".." in folders:
        return ImageError("its name leads out of the folder that the codes are unpacked in")
    try:
        return _Decoded(key, image_variants(sample.data)[0])
    except ImageError as error:
        return error
