"""Bytes of a sample to an array: images and codes, nothing else, and nothing pickled."""

import io
import math
import random
import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lit_mbldm.data.sources.images import ImageError, fit_square, load_rgb, to_array

_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '\|u1', 'fortran_order': False, 'shape': "
    rb"\(([12]), (\d{1,5}), (\d{1,5}), (\d{1,5})\), \} *\n",
    re.DOTALL,
)


class Decoder(Protocol):
    """Decodes one sample.

    Attributes:
        key: name of the sample in a batch.
    """

    key: str

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Decode; with a generator, augment. Raises ImageError."""


class ImageDecoder:
    """Images (3, H, W) uint8, flipped half of the time where a generator is given.

    Args:
        image_size: crop and resize to this side; None keeps the size.
        horizontal_flip: whether a generator flips.
    """

    key = "images"

    def __init__(self, image_size: int | None = None, horizontal_flip: bool = True) -> None:
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Decode an image; raises ImageError."""
        image = load_rgb(data)
        pixels = to_array(image if self.image_size is None else fit_square(image, self.image_size))
        flipped = rng is not None and self.horizontal_flip and rng.random() < 0.5
        return pixels[:, :, ::-1] if flipped else pixels


class CodeDecoder:
    """Codes (S, h, w) uint8 of a stored (V, S, h, w), V = 2 with the flipped image's codes.

    Args:
        shape: expected (S, h, w).
        horizontal_flip: whether a generator picks the flipped image's codes half of the time.
        codebook_size: K, which the codes lie below.
    """

    key = "codes"

    def __init__(
        self,
        shape: tuple[int, int, int],
        horizontal_flip: bool = True,
        codebook_size: int = 256,
    ) -> None:
        self.shape = shape
        self.horizontal_flip = horizontal_flip
        self.codebook_size = codebook_size

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Decode an .npy of codes; raises ImageError."""
        codes = self.variants(data)
        flipped = rng is not None and self.horizontal_flip and rng.random() < 0.5
        return codes[-1 if flipped else 0]

    def variants(self, data: bytes) -> NDArray[np.uint8]:
        """Decode all the variants stored, (V, S, h, w); raises ImageError."""
        codes = load_codes(data)
        if codes.shape[1:] != self.shape:
            raise ImageError(f"codes of shape {codes.shape[1:]} instead of {self.shape}")
        if self.codebook_size < 256 and codes.max() >= self.codebook_size:
            raise ImageError(
                f"code {codes.max()}, but the codec has {self.codebook_size} codewords"
            )
        return codes


def load_codes(data: bytes) -> NDArray[np.uint8]:
    """Read an .npy of codes (V, S, h, w) uint8, V 1 or 2.

    Raises:
        ImageError: it is not exactly what `np.save` writes of such an array.
    """
    header = _NPY.match(data)
    if header is None or header.end() != 10 + int.from_bytes(header[1], "little"):
        raise ImageError("no readable .npy of codes, uint8 (1 or 2, S, h, w)")
    shape = tuple(int(n) for n in header.groups()[1:])
    if len(data) - header.end() != math.prod(shape) or 0 in shape:
        raise ImageError(f"no readable .npy of codes: {len(data)} bytes for the shape {shape}")
    return np.frombuffer(data, np.uint8, offset=header.end()).reshape(shape).copy()


def dump_codes(codes: NDArray[np.uint8]) -> bytes:
    """Write codes (V, S, h, w) uint8 as an .npy."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(codes), allow_pickle=False)
    return stream.getvalue()
