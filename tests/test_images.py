import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lit_mbldm.images import ImageError, fit_square, load_rgb, to_array


def to_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int = 24, width: int = 32) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def corner() -> Image.Image:
    image = Image.new("RGB", (30, 20), "black")
    image.paste("white", (0, 0, 10, 10))
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "JPEG", "WEBP", "GIF"])
def test_common_formats_are_read_and_truncated_ones_refused(kind: str) -> None:
    image = load_rgb(to_bytes(corner(), kind))
    assert image.mode == "RGB"
    assert min(image.getpixel((3, 3))) > 240
    assert max(image.getpixel((25, 15))) < 15
    if kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(to_array(load_rgb(to_bytes(noise(), kind))), to_array(noise()))
    data = to_bytes(noise(64, 64), kind)
    if kind not in ("GIF", "PPM"):
        with pytest.raises(ImageError):
            load_rgb(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("orientation", "size", "white"),
    [
        (1, (30, 20), (3, 3)),
        (3, (30, 20), (26, 16)),
        (6, (20, 30), (16, 3)),
        (8, (20, 30), (3, 26)),
    ],
)
def test_exif_orientation_is_applied(orientation, size, white) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_rgb(to_bytes(corner(), "JPEG", exif=exif, quality=95))
    assert image.size == size
    assert min(image.getpixel(white)) > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), {"RGBA": (0, 0, 0, 0), "LA": (0, 0), "P": 0}[mode])
    if mode == "P":
        image.putpalette([10, 20, 30, 0, 0, 0])
    image.putpixel((1, 1), {"RGBA": (0, 0, 0, 255), "LA": (0, 255), "P": 1}[mode])
    loaded = load_rgb(to_bytes(image, **({"transparency": 0} if mode == "P" else {})))
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 1)) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    data = bytearray(to_bytes(noise()))
    data[16:24] = struct.pack(">II", side, side + 1)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageError, match="pixels"):
        load_rgb(bytes(data))


def test_the_pixel_limit_is_exact() -> None:
    data = to_bytes(noise(24, 32))
    assert load_rgb(data, max_pixels=24 * 32).size == (32, 24)
    with pytest.raises(ImageError, match="32×24"):
        load_rgb(data, max_pixels=24 * 32 - 1)


def test_the_centre_is_cropped_and_resizing_is_antialiased() -> None:
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    assert np.all(to_array(fit_square(image, 10)) == 255)
    assert fit_square(image, 40).size == (40, 40)
    with pytest.raises(ImageError, match="30×10 is too small"):
        fit_square(image, 41)
    checks = Image.fromarray(np.indices((256, 256)).sum(0).astype(np.uint8) % 2 * 255)
    small = to_array(fit_square(checks.convert("RGB"), 32))
    assert np.abs(small.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "big-endian"])
def test_16_bit_grayscale_is_scaled(kind: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    image = Image.fromarray(values)
    if kind == "big-endian":
        kind, image = "TIFF", Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    assert to_array(load_rgb(to_bytes(image, kind)))[:, 0].tolist() == [[0, 1, 128, 255]] * 3


@pytest.mark.parametrize(
    ("mode", "value", "kind", "expected"),
    [
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), "JPEG", (0, 173, 239)),
    ],
)
def test_other_modes_become_rgb(mode, value, kind, expected) -> None:
    found = load_rgb(to_bytes(Image.new(mode, (8, 8), value), kind)).getpixel((4, 4))
    assert np.abs(np.subtract(found, expected)).max() < (90 if mode == "CMYK" else 1)


@pytest.mark.parametrize("data", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_or_has_pixels_of_no_range_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        load_rgb(data)
    with pytest.raises(ImageError, match="floating-point"):
        load_rgb(to_bytes(Image.new("F", (4, 4), 0.5), "TIFF"))
