"""Table 1 of Scribano et al. 2023: four codecs on three images, beside JPEG and WebP.

python benchmarks/codec_table.py --train MCM_FOLDER --test SIPI_FOLDER [--kodak FOLDER]
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.codecs.fitting.quantizers import fit_patch_codec
from lit_mbldm.data.sources.images import IMAGE_SUFFIXES, load_rgb, to_array
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.pictures import to_pil

IMAGES = ("baboon", "peppers", "lenna")
# The paper's PSNR and SSIM for baboon, peppers, lenna.
PAPER = {
    "VQ-8-8-8": ((28.83, 0.40), (30.75, 0.63), (31.23, 0.67)),
    "PQ-32-8-8": ((29.07, 0.60), (31.28, 0.69), (31.80, 0.74)),
    "OPQ-32-8-8": ((29.12, 0.62), (31.56, 0.72), (32.35, 0.78)),
    "RQ-32-8-8": ((29.22, 0.64), (31.97, 0.75), (32.81, 0.81)),
}
RATE = 0.75
SSIM_MARK, PSNR_MARK = 0.015, 0.3

Compress = Callable[[Tensor], tuple[Tensor, float]]  # image -> decoded image, bits a pixel


def wrapped_psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR of two images (3, H, W) uint8 with squares taken in uint8, modulo 256: too large.

    Reproduces the PSNR column of the paper's Table 1.
    """
    difference = a - b
    return 10 * torch.log10(255**2 / (difference * difference).double().mean())


@dataclass(frozen=True)
class Figures:
    """One image through one codec: bits a pixel, PSNR and wrapped PSNR in dB, SSIM."""

    rate: float
    psnr: float
    wrapped: float
    ssim: float

    @classmethod
    def measure(cls, image: Tensor, compress: Compress) -> "Figures":
        """Compress an image (3, H, W) uint8 and compare."""
        decoded, rate = compress(image)
        values = (float(f(image, decoded)) for f in (psnr, wrapped_psnr, ssim))
        return cls(rate, *values)

    @classmethod
    def mean(cls, figures: list["Figures"]) -> "Figures":
        """Average each figure."""
        names = ("rate", "psnr", "wrapped", "ssim")
        return cls(*(fmean(getattr(f, name) for f in figures) for name in names))


def patch_codec(codec: PatchCodec) -> Compress:
    """Compress with a fitted codec."""
    return lambda image: (codec.decode(codec.encode(image[None]))[0], codec.bits_per_pixel)


def pillow_codec(file_format: str) -> Compress:
    """Compress with Pillow to the largest file of at most 0.75 bits a pixel."""

    def compress(image: Tensor) -> tuple[Tensor, float]:
        pixels = image.shape[1] * image.shape[2]
        low, high = 1, 96  # quality `low` fits (or is the least), `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            fits = 8 * len(_save(image, file_format, middle)) <= RATE * pixels
            low, high = (middle, high) if fits else (low, middle)
        data = _save(image, file_format, low)
        return load_image(data), 8 * len(data) / pixels

    return compress


def _save(image: Tensor, file_format: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    to_pil(image).save(buffer, file_format, quality=quality, optimize=True)
    return buffer.getvalue()


def load_image(data: bytes) -> Tensor:
    """Decode a file to (3, H, W) uint8."""
    return torch.from_numpy(to_array(load_rgb(data)).copy())


def load_folder(folder: Path) -> dict[str, Tensor]:
    """Every image of a folder by its stem."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return {path.stem: load_image(path.read_bytes()) for path in paths}


def row(codec: str, image: str, found: Figures, paper: tuple[float, float] | None = None) -> str:
    """One line of the table."""
    theirs = [f"{paper[0]:.2f}", f"{paper[1]:.2f}"] if paper else ["", ""]
    cells = [codec, image, f"{found.rate:.3f}", f"{found.psnr:.2f}", f"{found.wrapped:.2f}"]
    return "| " + " | ".join([*cells, theirs[0], f"{found.ssim:.3f}", theirs[1]]) + " |"


def verdict(name: str, misses: dict[str, float], mark: float, unit: str = "") -> str:
    """Say whether all cells lie within the mark, and which do not."""
    far = [f"{cell} ({off:+.3f})" for cell, off in misses.items() if abs(off) > mark]
    worst = max(abs(off) for off in misses.values())
    summary = f"{len(misses) - len(far)} of {len(misses)} cells within {mark}{unit} of the paper"
    return f"{name}: {summary}, largest difference {worst:.3f}{unit}. {', '.join(far)}".rstrip()


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="folder of images to fit on")
    parser.add_argument("--test", type=Path, required=True, help="folder with " + ", ".join(IMAGES))
    parser.add_argument("--kodak", type=Path, help="folder; default: kodak beside --test")
    parser.add_argument("--max-patches", type=int, default=65_536, help="patches to fit on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tests = load_folder(options.test)
    if missing := set(IMAGES) - set(tests):
        parser.error(f"{options.test} lacks {', '.join(sorted(missing))}")
    kodak_folder = options.kodak or options.test.resolve().parent / "kodak"
    kodak = load_folder(kodak_folder) if kodak_folder.is_dir() else {}

    train = list(load_folder(options.train).values())
    codecs: dict[str, Compress] = {}
    progress = tqdm(PAPER, unit="codec")
    for name in progress:
        progress.set_description(f"fitting {name}")
        codec = fit_patch_codec(train, name, max_patches=options.max_patches, seed=options.seed)
        codecs[name] = patch_codec(codec)
    codecs |= {"JPEG": pillow_codec("JPEG"), "WebP": pillow_codec("WEBP")}

    print("| codec | image | bits a pixel | PSNR | PSNR, wrapped | paper | SSIM | paper |")
    print("|---|---|---|---|---|---|---|---|")
    wrapped_off, ssim_off = {}, {}
    for name, compress in codecs.items():
        for i, image in enumerate(IMAGES):
            found, paper = Figures.measure(tests[image], compress), PAPER.get(name)
            print(row(name, image, found, paper[i] if paper else None))
            if paper:
                wrapped_off[f"{name} {image}"] = found.wrapped - paper[i][0]
                ssim_off[f"{name} {image}"] = found.ssim - paper[i][1]
        if kodak:
            mean = Figures.mean([Figures.measure(image, compress) for image in kodak.values()])
            print(row(name, "Kodak, mean", mean))
    print()
    print(verdict("SSIM", ssim_off, SSIM_MARK))
    print(verdict("Wrapped PSNR", wrapped_off, PSNR_MARK, " dB"))


if __name__ == "__main__":
    main()
