"""Masks: which pixels of images are drawn again, and how these join the ones that stay.

B images of H×W pixels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs.base import to_uint8
from lit_mbldm.codecs.patches import check_images, describe_value
from lit_mbldm.errors import InputError
from lit_mbldm.pictures import Images, to_batch


def read_images(images: Images) -> Tensor:
    """Images as a batch on the CPU, (B, 3, H, W) uint8; raises InputError for what is none."""
    pixels = to_batch(images)
    check_images(pixels)
    return pixels.cpu()


def read_mask(mask: Any, pixels: Tensor) -> Tensor:
    """The mask of each image, (B, H, W) bool on the CPU, of images (B, 3, H, W).

    Raises InputError for another shape or type.
    """
    found = torch.from_numpy(mask) if isinstance(mask, np.ndarray) else mask
    shape = pixels[:, 0].shape
    fits = isinstance(found, Tensor) and tuple(found.shape) in (shape, shape[1:])
    if not fits or found.dtype != torch.bool:
        raise InputError(
            f"Expected a mask of bool, True for what is drawn again, of shape {tuple(shape[1:])} or"
            f" {tuple(shape)} as the images have, got {describe_value(found)}."
        )
    return found.cpu().expand(shape)


def on_canvas(images: Tensor, canvas: tuple[int, int], patch_size: int) -> tuple[Tensor, Tensor]:
    """Put images in the middle of a larger white canvas, at the start of a patch.

    Args:
        images: (B, 3, H, W) uint8.
        canvas: its (height, width).
        patch_size: side of a patch in pixels.

    Returns:
        (B, 3, *canvas) uint8, and where the canvas is empty, (*canvas,) bool.

    Raises:
        InputError: a smaller canvas.
    """
    sides = images.shape[2:]
    if any(outer < inner for outer, inner in zip(canvas, sides, strict=True)):
        raise InputError(
            f"Expected a canvas of at least the image's {sides[0]}×{sides[1]} pixels, got"
            f" {canvas[0]}×{canvas[1]}."
        )
    top, left = ((canvas[i] - sides[i]) // 2 // patch_size * patch_size for i in (0, 1))
    inside = slice(top, top + sides[0]), slice(left, left + sides[1])
    spread = images.new_full((len(images), 3, *canvas), 255)
    spread[:, :, *inside] = images
    empty = torch.ones(*canvas, dtype=torch.bool)
    empty[inside] = False
    return spread, empty


def join(drawn: Tensor, images: Tensor, masks: Tensor, width: int) -> Tensor:
    """Put what was drawn into images, whose other pixels stay.

    By how much drawn and kept pixels differ on average within `width` pixels is added to what is
    drawn, less and less away from the kept ones: no seam.

    Args:
        drawn: (B, 3, H, W) uint8.
        images: (B, 3, H, W) uint8.
        masks: (B, H, W) bool, True for what is drawn.
        width: in pixels.

    Returns:
        (B, 3, H, W) uint8.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * width + 1, stride=1, padding=width, count_include_pad=False)

    kept = ~masks[:, None]
    share = mean(kept.float())
    difference = mean((images.float() - drawn) * kept) / share.clamp(min=1e-6)
    met = drawn + difference * (2 * share).clamp(max=1)  # half are kept at a straight border
    return torch.where(kept, images, to_uint8(met))
