"""Images of other sizes: antialiased bicubic resizing, its limits, and tiles with margins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs.patches import MAX_SIDE
from lit_mbldm.errors import InputError

MAX_OUTPUT = 1 << 28  # pixels of an image: 16384×16384


def check_size(size: tuple[int, int]) -> None:
    """Raise InputError for what is no (height, width) of an image that fits into memory."""
    pair = isinstance(size, Sequence) and len(size) == 2
    if not pair or not all(isinstance(n, Integral) and n > 0 for n in size):
        raise InputError(f"Expected a size of (height, width) in pixels, got {size}.")
    if max(size) > MAX_SIDE or size[0] * size[1] > MAX_OUTPUT:
        raise InputError(
            f"A decoded image has at most {MAX_OUTPUT:,} pixels, and {MAX_SIDE:,} a side; got"
            f" {size[0]}×{size[1]}. Ask for a smaller size."
        )


def check_enlarged(sides: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise InputError for a size that an image of these (height, width) is not enlarged to."""
    check_size(size)
    if size[0] < sides[0] or size[1] < sides[1]:
        raise InputError(
            f"Upscaling makes an image larger: expected at least {sides[0]}×{sides[1]}, its own"
            f" size, or a scale of at least 1; got {size[0]}×{size[1]}."
        )


def is_above(size: tuple[int, int] | None, sides: tuple[int, int]) -> TypeGuard[tuple[int, int]]:
    """Whether a size is larger than these (height, width), and nowhere smaller.

    Raises InputError for what is no size.
    """
    if size is None:
        return False
    check_size(size)
    return size[0] >= sides[0] and size[1] >= sides[1] and tuple(size) != sides


def resize(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize images (B, 3, H, W) float by antialiased bicubic interpolation; None keeps them.

    Raises InputError for a side below 1, or too large an image.
    """
    if size is None:
        return images
    check_size(size)
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, list(size), mode="bicubic", antialias=True)


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize images (B, 3, H, W) uint8 as `resize` does, and round them again."""
    return to_uint8(resize(images.float(), size))


def pad_to_multiple(images: Tensor, side: int) -> Tensor:
    """Repeat the last row and column of images (B, 3, H, W) float up to multiples of a side."""
    H, W = images.shape[2:]
    return F.pad(images, (0, -W % side, 0, -H % side), mode="replicate")


def to_uint8(images: Tensor) -> Tensor:
    """Round images (B, 3, H, W) float, nominal range [0, 255], to uint8."""
    return images.round().clamp_(0, 255).to(torch.uint8)


def round_through(images: Tensor) -> Tensor:
    """Round images as `to_uint8` does, to float; gradients pass as if nothing was rounded."""
    return images.detach().round().clamp(0, 255) + (images - images.detach())


@dataclass(frozen=True)
class Tile:
    """A part of a plane.

    Attributes:
        outer: rows and columns that are computed, with a margin where the plane goes on.
        inner: those of them that are kept.
    """

    outer: tuple[slice, slice]
    inner: tuple[slice, slice]

    @property
    def kept(self) -> tuple[slice, slice]:
        """The inner rows and columns, counted from the outer ones' first."""
        return tuple(  # type: ignore[return-value]
            slice(i.start - o.start, i.stop - o.start)
            for i, o in zip(self.inner, self.outer, strict=True)
        )


def tiles(height: int, width: int, side: int, margin: int) -> Iterator[Tile]:
    """Cut a plane into tiles of at most side×side, with margins; row by row."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            ends = [(top, height), (left, width)]
            inner = [slice(a, min(a + side, end)) for a, end in ends]
            outer = [
                slice(max(part.start - margin, 0), min(part.stop + margin, end))
                for part, (_, end) in zip(inner, ends, strict=True)
            ]
            yield Tile((outer[0], outer[1]), (inner[0], inner[1]))
