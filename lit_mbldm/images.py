"""Reading any image safely: one that cannot be read whole is refused, never half decoded."""

import contextlib
import io
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lit_mbldm.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_HAS_HEIF = find_spec("pillow_heif") is not None
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
    | (HEIF_SUFFIXES if _HAS_HEIF else set())
)
MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 29  # of an undecoded image


class ImageError(InputError):
    """An image that cannot be used; the message is the reason, without the image's name."""


def check_bytes(size: int) -> None:
    """Raise ImageError where a file of `size` bytes is too large to be an image."""
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes, more than the {MAX_BYTES} allowed")


def load_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image of any of `FORMATS` and any mode to 8-bit RGB.

    The size is checked in the header before anything is decoded. EXIF orientation is applied,
    transparency lies on white, 16-bit grayscale is scaled to 8 bits (65535 becomes 255). Of an
    animation the first frame is taken.

    Raises:
        ImageError: not an image, truncated, corrupt, of more than `max_pixels` pixels, or with
            pixels without a range.
    """
    formats = _formats()
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"{image.width}×{image.height} pixels, more than the {max_pixels} allowed"
                )
            image.load()
            with contextlib.suppress(Exception):  # unreadable EXIF is as good as none
                ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image ({', '.join(formats)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"more than the {max_pixels} pixels allowed") from error
    except Exception as error:  # decoders raise nearly anything on corrupt data
        raise ImageError(f"truncated or corrupt ({error})") from error


def fit_square(image: Image.Image, size: int, max_upsampling: float = 4) -> Image.Image:
    """Crop the centre of an RGB image to a square and resize it to size×size pixels, antialiased.

    Raises ImageError where the shorter side is below size / max_upsampling.
    """
    side = min(image.size)
    if side * max_upsampling < size:
        raise ImageError(
            f"{image.width}×{image.height} is too small for {size}×{size}"
            f" (more than {max_upsampling:g}× upsampling)"
        )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return resize_square(image, (left, top, left + side, top + side), size)


def resize_square(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    """Resize the box (left, top, right, bottom) to size×size with Lanczos, antialiased."""
    if box[2] - box[0] == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """RGB image to (3, H, W) uint8."""
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads."""
    if _HAS_HEIF:
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode, as `load_rgb` does; raises ImageError likewise."""
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ImageError("32-bit pixels outside [0, 65535]; save it with 8 or 16 bits")
        image = Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
