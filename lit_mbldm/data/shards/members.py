"""Bytes of a sample to an array: images and codes, nothing else, and nothing pickled."""

import io
import math
import random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lit_mbldm.data.sources.images import ImageError, fit_square, load_rgb, to_array

_NPY = b"\x93NUMPY\x01\x00"  # version 1.0, which `np.save` writes


class SampleReader(Protocol):
    """Makes an array of one sample's bytes.

    Attributes:
        key: name of the sample in a batch.
    """

    key: str

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Read; with a source of random numbers, augment. Raises ImageError."""


class ImageReader:
    """Images (3, H, W) uint8, flipped half of the time where random numbers are given.

    Args:
        image_size: crop and resize to this side; None keeps the size.
        horizontal_flip: whether any image is flipped.
    """

    key = "images"

    def __init__(self, image_size: int | None = None, horizontal_flip: bool = True) -> None:
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Read an image; raises ImageError."""
        image = load_rgb(data)
        pixels = to_array(image if self.image_size is None else fit_square(image, self.image_size))
        flipped = rng is not None and self.horizontal_flip and rng.random() < 0.5
        return pixels[:, :, ::-1] if flipped else pixels


class CodeReader:
    """Codes (S, h, w) uint8 of a stored (V, S, h, w), V = 2 with the flipped image's codes.

    Args:
        shape: expected (S, h, w).
        horizontal_flip: whether the flipped image's codes are taken half of the time where random
            numbers are given.
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
        head = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}, }}"
        self._heads = {head.format((V, *shape)).encode(): V for V in (1, 2)}

    def __call__(self, data: bytes, rng: random.Random | None) -> NDArray[np.uint8]:
        """Read an .npy of codes; raises ImageError."""
        codes = self.variants(data)
        flipped = rng is not None and self.horizontal_flip and rng.random() < 0.5
        return codes[-1 if flipped else 0]

    def variants(self, data: bytes) -> NDArray[np.uint8]:
        """Read all the variants stored, (V, S, h, w).

        Raises:
            ImageError: it is not exactly what `np.save` writes of such codes, or a code is K or
                more.
        """
        head, _, codes = data.partition(b"\n")
        V = self._heads.get(head[10:].rstrip(b" "), 0)
        length = int.from_bytes(head[8:10], "little")
        right = head[:8] == _NPY and length == len(head) - 9
        if not V or not right or len(codes) != V * math.prod(self.shape):
            raise ImageError(f"no readable .npy of codes, uint8 (1 or 2, *{self.shape})")
        array = np.frombuffer(codes, np.uint8).reshape(V, *self.shape)
        if self.codebook_size < 256 and array.max() >= self.codebook_size:
            raise ImageError(
                f"code {array.max()}, but the codec has {self.codebook_size} codewords"
            )
        return array


def dump_codes(codes: NDArray[np.uint8]) -> bytes:
    """Write codes (V, S, h, w) uint8 as an .npy."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(codes), allow_pickle=False)
    return stream.getvalue()
