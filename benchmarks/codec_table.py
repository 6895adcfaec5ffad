"""Table 1 of Scribano et al. 2023: four codecs on three images, beside JPEG and WebP.

python benchmarks/codec_table.py --train MCM_FOLDER --test SIPI_FOLDER [--kodak FOLDER]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from coding import Coder, Photo, ours, pillow
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs.fitting.quantizers import fit_patch_codec
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.metrics.codec_quality import psnr, ssim

IMAGES = ("baboon", "peppers", "lenna")
# The paper's PSNR and SSIM for baboon, peppers, lenna.
PAPER = {
    "VQ-8-8-8": ((28.83, 0.40), (30.75, 0.63), (31.23, 0.67)),
    "PQ-32-8-8": ((29.07, 0.60), (31.28, 0.69), (31.80, 0.74)),
    "OPQ-32-8-8": ((29.12, 0.62), (31.56, 0.72), (32.35, 0.78)),
    "RQ-32-8-8": ((29.22, 0.64), (31.97, 0.75), (32.81, 0.81)),
}
BITS, PATCH = 48, 8  # of the files beside: 48 bits for 8×8 pixels
SSIM_MARK, PSNR_MARK = 0.015, 0.3  # differences that count as agreement


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
    def measure(cls, coder: Coder, photo: Photo) -> "Figures":
        """Code an image and compare."""
        coded = coder.code(photo)
        values = (float(f(photo.tensor, coded.image)) for f in (psnr, wrapped_psnr, ssim))
        return cls(coded.rate, *values)

    @classmethod
    def mean(cls, figures: list["Figures"]) -> "Figures":
        """Average each figure."""
        names = ("rate", "psnr", "wrapped", "ssim")
        return cls(*(fmean(getattr(f, name) for f in figures) for name in names))


def load_folder(folder: Path) -> dict[str, Photo]:
    """Every image of a folder by its stem."""
    return {Path(name).stem: Photo(image, PATCH) for name, image in read_images(folder).items()}


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

    train = [photo.tensor for photo in load_folder(options.train).values()]
    coders: list[Coder] = []
    progress = tqdm(PAPER, unit="codec")
    for name in progress:
        progress.set_description(f"fitting {name}")
        codec = fit_patch_codec(train, name, max_patches=options.max_patches, seed=options.seed)
        coders.append(ours(name, codec))
    coders += [pillow("JPEG", BITS), pillow("WebP", BITS)]

    print("| codec | image | bits a pixel | PSNR | PSNR, wrapped | paper | SSIM | paper |")
    print("|---|---|---|---|---|---|---|---|")
    wrapped_off, ssim_off = {}, {}
    for coder in coders:
        name = coder.name
        for i, image in enumerate(IMAGES):
            found, paper = Figures.measure(coder, tests[image]), PAPER.get(name)
            print(row(name, image, found, paper[i] if paper else None))
            if paper:
                wrapped_off[f"{name} {image}"] = found.wrapped - paper[i][0]
                ssim_off[f"{name} {image}"] = found.ssim - paper[i][1]
        if kodak:
            mean = Figures.mean([Figures.measure(coder, photo) for photo in kodak.values()])
            print(row(name, "Kodak, mean", mean))
    print()
    print(verdict("SSIM", ssim_off, SSIM_MARK))
    print(verdict("Wrapped PSNR", wrapped_off, PSNR_MARK, " dB"))


if __name__ == "__main__":
    main()
