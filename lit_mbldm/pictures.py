"""Putting images together for people to look at."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import check_writable, replacing

_GAP = 2
_KEY = "lit_mbldm"  # of a text in a PNG


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


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """Put pictures (3, H, W) uint8 one above another, white at the right of narrower ones."""
    width = max(one.shape[2] for one in pictures)
    return torch.cat([F.pad(one, (0, width - one.shape[2]), value=255) for one in pictures], dim=1)


def table(images: Tensor, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Image.Image:
    """Lay images out in rows and columns with captions.

    Args:
        images: (R, C, 3, H, W) uint8.
        rows: R captions at the left, or none.
        columns: C captions above, or none.
    """
    R, C, _, H, W = images.shape
    sheet = to_pil(grid(images.flatten(0, 1), C))
    size = min(max(W // 6, 6), 20)  # "t = 1000" fits above an image
    font = ImageFont.load_default(size=size)
    left = math.ceil(max(map(font.getlength, rows), default=-2 * _GAP)) + 2 * _GAP
    top = 2 * size if columns else 0
    framed = Image.new("RGB", (left + sheet.width, top + sheet.height), "white")
    framed.paste(sheet, (left, top))
    pen = ImageDraw.Draw(framed)
    for caption, row in zip(rows, range(R), strict=bool(rows)):
        centre = top + _GAP + row * (H + _GAP) + H // 2
        pen.text((left - _GAP, centre), caption, "black", font, anchor="rm")
    for caption, column in zip(columns, range(C), strict=bool(columns)):
        centre = left + _GAP + column * (W + _GAP) + W // 2
        pen.text((centre, top // 2), caption, "black", font, anchor="mm")
    return framed


def to_pil(image: Tensor) -> Image.Image:
    """Turn (3, H, W) uint8 into a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an RGB Pillow image into (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def check_path(path: Path) -> None:
    """Raise InputError where no picture can be written: another suffix, no folder or read-only."""
    if path.suffix.lower() != ".png":
        raise InputError(f"Pictures are written as PNG, expected a name such as grid.png: {path}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist. Make it, or name another.")
    check_writable(path.absolute().parent)


def save(image: Tensor | Image.Image, path: Path, fingerprint: str | None = None) -> None:
    """Write (3, H, W) uint8 or a Pillow image as a PNG, whole or not at all; folders are made.

    Args:
        image: the picture.
        path: of the file.
        fingerprint: of what made it, kept in the file for `fingerprint_of`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = PngInfo()
    if fingerprint is not None:
        texts.add_text(_KEY, fingerprint)
    with replacing(path) as temporary:
        pillow = to_pil(image) if isinstance(image, Tensor) else image
        pillow.save(temporary, "PNG", pnginfo=texts)


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint that `save` kept in a PNG; None if there is none, or no PNG."""
    try:
        with Image.open(path) as image:
            return image.info.get(_KEY)
    except OSError:
        return None
