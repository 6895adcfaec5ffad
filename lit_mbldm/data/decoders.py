"""Bytes of a sample to an array: images and codes, nothing else, and nothing pickled."""

import io
import random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lit_mbldm.data.images import ImageError, fit_square, load_rgb, to_array


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
    """

    key = "codes"

    def __init__(self, shape: tuple[int, int, int], horizontal_flip: bool = True) -> None:
        self.shape = shape
        self.horizontal_flip = horizontal_flip

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
        return codes


def load_codes(data: bytes) -> NDArray[np.uint8]:
    """Read an .npy of codes (V, S, h, w), V 1 or 2.

    Raises:
        ImageError: pickled, truncated, or another dtype or shape.
    """
    try:
        codes = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ImageError(f"no readable .npy of codes ({error})") from error
    if codes.dtype != np.uint8:
        raise ImageError(f"codes of dtype {codes.dtype} instead of uint8")
    if codes.ndim != 4 or codes.shape[0] not in (1, 2):
        raise ImageError(f"codes of shape {codes.shape} instead of (1 or 2, S, h, w)")
    return codes


def dump_codes(codes: NDArray[np.uint8]) -> bytes:
    """Write codes (V, S, h, w) uint8 as an .npy."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(codes), allow_pickle=False)
    return stream.getvalue()
