"""What people give the page: photographs, and strokes of a brush over them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError, check_bytes, fit_square, load_rgb

_LONGEST = 1024  # side of a photograph that is compressed, in pixels


def read_photo(path: str | None) -> Image.Image:
    """An uploaded photograph as RGB; raises InputError for none, or one that cannot be used."""
    if path is None:
        raise InputError("Expected a photograph, got none: upload one.")
    try:
        check_bytes(Path(path).stat().st_size)
        return load_rgb(Path(path).read_bytes())
    except ImageError as error:
        raise InputError(f"The photograph cannot be used: {error}.") from error


def square(photo: Image.Image, side: int) -> Image.Image:
    """A photograph's middle at the model's size; raises InputError for a smaller one."""
    try:
        return fit_square(photo, side, max_upsampling=1)
    except ImageError as error:
        raise InputError(
            f"Expected a photograph of at least {side}×{side} pixels, which the model learned, got"
            f" {photo.height}×{photo.width}: take a larger one."
        ) from error


def whole_patches(photo: Image.Image, patch_size: int) -> Image.Image:
    """A photograph, made smaller if need be, without what is beyond its last whole patches."""
    shown = photo.copy()
    shown.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    width, height = (side // patch_size * patch_size for side in shown.size)
    if not width or not height:
        raise InputError(
            f"Expected a photograph of at least {patch_size}×{patch_size} pixels, a patch of the"
            f" codec, got {photo.height}×{photo.width}: take a larger one."
        )
    return shown.crop((0, 0, width, height))


def painted(layers: list[Any], side: int) -> Tensor:
    """Which pixels of a picture strokes touch.

    Args:
        layers: of strokes over the picture n times as large, (n·side, n·side, 4) uint8 RGBA each.
        side: of the picture.

    Returns:
        (side, side) bool.

    Raises:
        InputError: no stroke, or layers of another size.
    """
    marked = torch.zeros(side, side, dtype=torch.bool)
    for layer in layers:
        rows, columns = layer.shape[:2]
        if rows != columns or rows % side:
            raise InputError(
                f"Expected strokes over a picture of {side}×{side} pixels or a multiple, got"
                f" {rows}×{columns}: choose the picture again."
            )
        n = rows // side
        cells = np.asarray(layer)[:, :, 3].reshape(side, n, side, n)
        marked |= torch.from_numpy(cells.max(axis=(1, 3)) > 0)
    if not marked.any():
        raise InputError("Expected strokes where the picture is to be drawn again: paint some.")
    return marked
