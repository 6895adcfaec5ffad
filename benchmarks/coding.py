"""Coding test images with our codecs and with Pillow's file formats, timed."""

import io
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeVar

from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.pictures import to_tensor

PATCH_PIXELS = 64
QUALITIES = {"JPEG": range(1, 101), "WebP": range(101), "AVIF": range(101)}
RUNS = 3
MS_SSIM_SIDE = 176  # five scales of an 11×11 window
MAX_PSNR = 100.0  # equal images would have infinitely many dB

T = TypeVar("T")


class Photo:
    """A test image for the codecs here and for Pillow, cut to multiples of `side` pixels."""

    def __init__(self, image: Image.Image, side: int) -> None:
        self.picture = image.crop((0, 0, image.width // side * side, image.height // side * side))
        self.picture.load()
        self.tensor = to_tensor(self.picture)  # (3, H, W)
        self.pixels = self.picture.width * self.picture.height
        self._rates: dict[tuple[str, int], float] = {}

    def file(self, file_format: str, quality: int) -> bytes:
        """The image as a file."""
        buffer = io.BytesIO()
        self.picture.save(buffer, file_format, quality=quality, optimize=True)
        return buffer.getvalue()

    def rate(self, file_format: str, quality: int) -> float:
        """Bits a pixel of a file; each is made once, whichever rates ask for it."""
        key = file_format, quality
        if key not in self._rates:
            self._rates[key] = 8 * len(self.file(*key)) / self.pixels
        return self._rates[key]


@dataclass(frozen=True)
class Coded:
    """An image (3, H, W) uint8 after coding: bits a pixel, milliseconds, if above the rate."""

    image: Tensor
    rate: float
    encode_ms: float
    decode_ms: float
    above: bool = False


@dataclass(frozen=True)
class Coder:
    """What codes images: its row's name, its curve (none: a mark of its own), bits a patch."""

    name: str
    curve: str | None
    bits: float
    code: Callable[[Photo], Coded]


def ours(name: str, codec: ImageCodec, curve: str | None = None) -> Coder:
    """Code with a codec of this package."""

    def code(photo: Photo) -> Coded:
        codes, encode_ms = timed(lambda: codec.encode(photo.tensor[None]))
        decoded, decode_ms = timed(lambda: codec.decode(codes))
        return Coded(decoded[0], codec.bits_per_pixel, encode_ms, decode_ms)

    return Coder(name, curve, codec.bits_per_pixel * PATCH_PIXELS, code)


def pillow(file_format: str, bits: int) -> Coder:
    """Code to the largest file of at most a rate, or the smallest of all; untimed search."""
    qualities = QUALITIES[file_format]

    def code(photo: Photo) -> Coded:
        fitting = bisect_right(
            qualities, bits / PATCH_PIXELS, key=lambda quality: photo.rate(file_format, quality)
        )
        quality = qualities[max(fitting - 1, 0)]
        data, encode_ms = timed(lambda: photo.file(file_format, quality))
        decoded, decode_ms = timed(lambda: Image.open(io.BytesIO(data)).convert("RGB"))
        rate = photo.rate(file_format, quality)
        return Coded(to_tensor(decoded), rate, encode_ms, decode_ms, above=fitting == 0)

    return Coder(file_format, file_format, bits, code)


def timed(task: Callable[[], T]) -> tuple[T, float]:
    """What a task returns, and the median of its milliseconds of processor time."""
    milliseconds = []
    for _ in range(RUNS):
        start = time.process_time()
        result = task()
        milliseconds.append(1e3 * (time.process_time() - start))
    return result, median(milliseconds)


@dataclass(frozen=True)
class Point:
    """One coder on one set of images: bits a pixel, dB, SSIMs, milliseconds, images above the rate.

    MS-SSIM is nan where an image is too small for it.
    """

    coder: Coder
    rate: float
    psnr: float
    ssim: float
    ms_ssim: float
    encode_ms: float
    decode_ms: float
    above: int


def ms_ssim(a: Tensor, b: Tensor) -> float:
    """Multi-scale SSIM (Wang et al. 2003) of R, G and B together; nan for small images."""
    if min(a.shape[1:]) < MS_SSIM_SIDE:
        return math.nan
    pair = a[None].float(), b[None].float()
    return float(multiscale_structural_similarity_index_measure(*pair, data_range=255.0))


def measure(coder: Coder, photos: Sequence[Photo], progress: tqdm) -> Point:
    """Take all figures of one coder."""
    progress.set_description(f"{coder.name}, {coder.bits:g} bits")
    coded, similarities = [], []
    for photo in photos:
        coded.append(coder.code(photo))
        pair = coded[-1].image, photo.tensor
        decibels = min(float(psnr(*pair)), MAX_PSNR)
        similarities.append((decibels, float(ssim(*pair)), ms_ssim(*pair)))
        progress.update()
    decibels, one_scale, scales = (fmean(column) for column in zip(*similarities, strict=True))
    return Point(
        coder,
        rate=fmean(c.rate for c in coded),
        psnr=decibels,
        ssim=one_scale,
        ms_ssim=scales,
        encode_ms=median(c.encode_ms for c in coded),
        decode_ms=median(c.decode_ms for c in coded),
        above=sum(c.above for c in coded),
    )
