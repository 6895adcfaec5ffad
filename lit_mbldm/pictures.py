"""Pictures as people have them, in and out: files, Pillow images, sheets to look at."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError, check_bytes, load_rgb, to_rgb
from lit_mbldm.storage.atomic import check_writable, replacing

_GAP = 2
_KEY = "lit_mbldm"  # of a text in a PNG
Picture: TypeAlias = str | Path | Image.Image | NDArray[Any]
Images: TypeAlias = Tensor | Picture | Sequence[Picture]  # what is taken for a batch


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


def table(
    images: Tensor,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    font_size: int | None = None,
) -> Image.Image:
    """Lay images out in rows and columns with captions.

    Args:
        images: (R, C, 3, H, W) uint8.
        rows: R captions at the left, or none.
        columns: C captions above, or none.
        font_size: of the captions in pixels; by default "t = 1000" fits above an image.
    """
    R, C, _, H, W = images.shape
    sheet = to_pil(grid(images.flatten(0, 1), C))
    font_size = font_size or min(max(W // 6, 6), 20)
    font = ImageFont.load_default(size=font_size)
    left = math.ceil(max(map(font.getlength, rows), default=-2 * _GAP)) + 2 * _GAP
    top = 2 * font_size if columns else 0
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


def to_batch(images: Images) -> Tensor:
    """Turn pictures into one batch, grey and transparent ones too, as `load_rgb` does.

    Args:
        images: one or several of one size: paths, Pillow images, or uint8 arrays (H, W), (H, W, 3)
            or (H, W, 4). A tensor is returned as it is.

    Returns:
        (B, 3, H, W) uint8 RGB.

    Raises:
        InputError: something else, a file that cannot be read, none, or several sizes.

    Example:
        >>> to_batch([np.zeros((16, 24), np.uint8), Image.new("RGBA", (24, 16))]).shape
        torch.Size([2, 3, 16, 24])
    """
    if isinstance(images, Tensor):
        return images
    batch = isinstance(images, np.ndarray) and images.ndim == 4
    several: Any = images if batch or isinstance(images, list | tuple) else [images]
    pictures = [_read(picture) for picture in several]
    sizes = sorted({f"{picture.height}×{picture.width}" for picture in pictures})
    if len(sizes) != 1:
        raise InputError(
            f"Expected pictures of one size, got {', '.join(sizes) or 'none'}. Crop or resize them,"
            " or give them one by one."
        )
    return torch.stack([to_tensor(picture) for picture in pictures])


def _read(picture: Picture) -> Image.Image:
    if isinstance(picture, str | Path):
        check_bytes(Path(picture).stat().st_size)
        try:
            return load_rgb(Path(picture).read_bytes())
        except ImageError as error:
            raise InputError(f"{picture} cannot be used: {error}.") from error
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        with contextlib.suppress(TypeError):  # of an array that Pillow has no mode for
            picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return to_rgb(ImageOps.exif_transpose(picture))
    facts = f"{picture.dtype} of shape {picture.shape}" if isinstance(picture, np.ndarray) else ""
    raise InputError(
        "Expected a path, a Pillow image or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4),"
        f" got {facts or f'a {type(picture).__name__}'}."
    )


def check_path(path: Path) -> None:
    """Raise InputError where no picture can be written: another suffix, no folder or read-only."""
    if path.suffix.lower() != ".png":
        raise InputError(f"Pictures are written as PNG, expected a name such as grid.png: {path}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist. Make it, or name another.")
    check_writable(path.absolute().parent)


def save(image: Tensor | Image.Image, path: Path, text: str | None = None) -> None:
    """Write (3, H, W) uint8 or a Pillow image as a PNG, whole or not at all; folders are made.

    Args:
        image: the picture.
        path: of the file.
        text: of what made it, kept in the file for `text_of`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = PngInfo()
    if text is not None:
        texts.add_itxt(_KEY, text)
    with replacing(path) as temporary:
        pillow = to_pil(image) if isinstance(image, Tensor) else image
        pillow.save(temporary, "PNG", pnginfo=texts)


def text_of(path: Path) -> str | None:
    """The text that `save` kept in a PNG; None if there is none, or no PNG."""
    try:
        with Image.open(path) as image:
            return image.info.get(_KEY)
    except OSError:
        return None
