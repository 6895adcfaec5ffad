"""Rate and distortion: the codecs here, and JPEG, WebP and AVIF at the same rates.

    python benchmarks/codec_rd.py --train FOLDER [FOLDER ...] --test FOLDER [FOLDER ...]

Every codec is fitted on the images of all training folders at 24, 32, 48, 64 and 96 bits a patch of
8×8 pixels. Pillow's formats take the largest file of at most that rate. Quality is the mean over the
images of a test folder, of true RGB PSNR, SSIM and MS-SSIM; times are medians on one thread.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from tqdm import tqdm

from lit_mbldm.codecs.fit import fit_codec
from lit_mbldm.codecs.image_codec import ImageCodec
from lit_mbldm.data.images import IMAGE_SUFFIXES, load_rgb, to_array
from lit_mbldm.metrics import psnr, ssim
from lit_mbldm.pictures import save, to_pil

PATCH_PIXELS = 64
# bits of Y, Cb and Cr for the codecs that take the channels one by one
RATES = {24: "8-8-8", 32: "16-8-8", 48: "32-8-8", 64: "48-8-8", 96: "64-16-16"}
KINDS = ("PQ", "OPQ", "RQ", "JPQ")
FORMATS = ("JPEG", "WEBP", "AVIF")
COLOURS = ("#9a9a9a", "#d08a1d", "#7a5fb0", "#c0392b", "#1f77b4", "#2a9d5c", "#333333")


@dataclass(frozen=True)
class Point:
    """One codec at one rate on one folder: bits a pixel, dB, SSIMs, milliseconds."""

    codec: str
    rate: float
    psnr: float
    ssim: float
    ms_ssim: float
    encode_ms: float
    decode_ms: float


Coder = tuple[Callable[[Tensor], object], Callable[[object], Tensor], Callable[[object], float]]


def ours(codec: ImageCodec) -> Coder:
    """Encode, decode and bits of a codec here."""
    return (
        lambda image: codec.encode(image[None]),
        lambda codes: codec.decode(codes)[0],
        lambda codes: codes.numel() * 8,
    )


def pillow(file_format: str, bits_a_pixel: float) -> Coder:
    """Encode to the largest file of at most a rate; the quality is searched before the clock."""
    found: dict[int, int] = {}

    def encode(image: Tensor) -> bytes:
        quality = found.get(id(image))
        if quality is None:
            low, high = 1, 96
            while high - low > 1:
                middle = (low + high) // 2
                fits = 8 * len(_save(image, file_format, middle)) <= bits_a_pixel * image[0].numel()
                low, high = (middle, high) if fits else (low, middle)
            found[id(image)] = quality = low
        return _save(image, file_format, quality)

    return encode, _load, lambda data: 8 * len(data)


def _save(image: Tensor, file_format: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    to_pil(image).save(buffer, file_format, quality=quality)
    return buffer.getvalue()


def _load(data: bytes) -> Tensor:
    return torch.from_numpy(to_array(load_rgb(data)).copy())


def load_folder(folder: Path) -> list[Tensor]:
    """Images of a folder, cut to multiples of the patch."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [_load(path.read_bytes()) for path in paths]
    return [i[:, : i.shape[1] // 8 * 8, : i.shape[2] // 8 * 8].contiguous() for i in images]


def measure(name: str, coder: Coder, images: list[Tensor]) -> Point:
    """Take all figures of one codec at one rate; each image is coded twice, timed once."""
    encode, decode, bits = coder
    rates, quality, times = [], [], []
    for image in images:
        encode(image)  # searches the quality, warms up
        start = time.perf_counter()
        code = encode(image)
        encoded = time.perf_counter()
        decoded = decode(code)
        times.append((encoded - start, time.perf_counter() - encoded))
        rates.append(bits(code) / image[0].numel())
        pair = decoded[None].float(), image[None].float()
        similarity = multiscale_structural_similarity_index_measure(*pair, data_range=255.0)
        quality.append(
            (float(psnr(decoded, image)), float(ssim(decoded, image)), float(similarity))
        )
    means = [fmean(column) for column in zip(*quality, strict=True)]
    milliseconds = [1000 * median(column) for column in zip(*times, strict=True)]
    return Point(name, fmean(rates), *means, *milliseconds)


def table(points: list[Point]) -> str:
    """Markdown, by rate."""
    lines = [
        "| codec | bits a pixel | PSNR | SSIM | MS-SSIM | encode, ms | decode, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.codec} | {p.rate:.3f} | {p.psnr:.2f} | {p.ssim:.3f} | {p.ms_ssim:.3f}"
        f" | {p.encode_ms:.1f} | {p.decode_ms:.1f} |"
        for p in sorted(points, key=lambda p: (round(p.rate, 1), p.psnr))
    ]
    return "\n".join(lines)


def plot(points: list[Point], title: str) -> Image.Image:
    """PSNR over rate, a line for each codec."""
    width, height, left, bottom = 900, 600, 70, 60
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    rates, levels = [p.rate for p in points], [p.psnr for p in points]
    low, high = int(min(levels)), int(max(levels)) + 1
    span = max(rates) * 1.05

    def place(rate: float, level: float) -> tuple[float, float]:
        x = left + (width - left - 120) * rate / span
        return x, height - bottom - (height - bottom - 40) * (level - low) / (high - low)

    for level in range(low, high + 1):
        (x0, y), (x1, _) = place(0, level), place(span, level)
        pen.line([(x0, y), (x1, y)], "#e4e4e4")
        pen.text((left - 8, y), f"{level}", "black", font, anchor="rm")
    for tenth in range(0, int(span * 10) + 1, 2):
        x, y = place(tenth / 10, low)
        pen.text((x, y + 8), f"{tenth / 10:g}", "black", font, anchor="mt")
    pen.text((width / 2, height - 12), "bits a pixel", "black", font, anchor="ms")
    pen.text((left, 12), f"{title}: mean true RGB PSNR (dB)", "black", font)
    kinds = list(dict.fromkeys(p.codec.partition("-")[0] for p in points))
    for kind, colour in zip(kinds, COLOURS, strict=False):
        own = sorted((p for p in points if p.codec.partition("-")[0] == kind), key=lambda p: p.rate)
        dots = [place(p.rate, p.psnr) for p in own]
        pen.line(dots, colour, 3)
        for x, y in dots:
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], colour)
        pen.text((dots[-1][0] + 8, dots[-1][1]), kind, colour, font, anchor="lm")
    return sheet


def main() -> None:
    """Fit, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="folders to fit on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="folders to measure on")
    parser.add_argument("--max-patches", type=int, default=200_000, help="patches to fit on")
    parser.add_argument("--picture", type=Path, default=Path("codec_rd.png"), help="PNG to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train = [image for folder in options.train for image in load_folder(folder)]
    coders: dict[str, Coder] = {}
    for bits, split in (progress := tqdm(RATES.items(), desc="fitting", unit="rate")):
        for kind in KINDS:
            name = f"JPQ-{bits}" if kind == "JPQ" else f"{kind}-{split}"
            progress.set_description(f"fitting {name}")
            coders[name] = ours(fit_codec(train, name, max_patches=options.max_patches))
        rate = bits / PATCH_PIXELS
        coders |= {f"{kind}-{bits}": pillow(kind, rate) for kind in FORMATS}
    for i, folder in enumerate(options.test):
        images = load_folder(folder)
        names = tqdm(coders.items(), desc=folder.name, unit="codec")
        points = [measure(name, coder, images) for name, coder in names]
        print(f"\n{folder.name}, {len(images)} images\n\n{table(points)}")
        if i == 0:
            save(plot(points, folder.name), options.picture)
            print(f"\nPicture: {options.picture}")


if __name__ == "__main__":
    main()
