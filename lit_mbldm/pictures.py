"""Putting images together for people to look at."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mbldm.atomic import replacing
from lit_mbldm.errors import InputError

_GAP = 2


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay images out on a white sheet.

    Args:
        images: (N, 3, H, W) uint8.
        columns: images a row; by default as square as it gets.

    Returns:
        (3, rows·(H+2)+2, columns·(W+2)+2) uint8.
    """
    N, C, H, W = images.shape
    columns = columns or math.ceil(math.sqrt(N))
    rows = -(-N // columns)
    sheet = torch.full((C, rows * (H + _GAP) + _GAP, columns * (W + _GAP) + _GAP), 255).byte()
    for i, image in enumerate(images):
        y, x = _GAP + i // columns * (H + _GAP), _GAP + i % columns * (W + _GAP)
        sheet[:, y : y + H, x : x + W] = image
    return sheet


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Put two pictures (3, H, W) uint8 of equal height side by side, a wide gap between."""
    gap = torch.full((3, left.shape[1], 8 * _GAP), 255, dtype=torch.uint8)
    return torch.cat([left, gap, right], dim=2)


def to_pil(image: Tensor) -> Image.Image:
    """Turn (3, H, W) uint8 into a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))


def check_path(path: Path) -> None:
    """Raise InputError where no picture can be written: another suffix, or no such folder."""
    if path.suffix.lower() != ".png":
        raise InputError(f"Pictures are written as PNG, expected a name such as grid.png: {path}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist. Make it, or name another.")


def save(image: Tensor | Image.Image, path: Path) -> None:
    """Write (3, H, W) uint8 or a Pillow image as a PNG, whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        (to_pil(image) if isinstance(image, Tensor) else image).save(temporary, "PNG")
