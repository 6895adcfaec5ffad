"""What each choice of JPQ-48 gives: fits variants and measures them on other images.

python benchmarks/jpq_choices.py --train FOLDER [FOLDER ...] --test FOLDER
"""

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from coding import Photo
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.codecs.fitting.joint import fit_joint_codec
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.metrics.codec_quality import psnr, ssim

SIDE = 16  # pixels a side that all variants' patches divide
CHOICES: dict[str, dict[str, Any]] = {
    "JPQ-48: overlapping patches of 8×8, 16 numbers a codeword, 20 rounds": {},
    "seed 1": {"seed": 1},
    "seed 2": {"seed": 2},
    "patches that do not overlap": {"lapped": False},
    "8 numbers a codeword": {"sub_dim": 8},
    "12 numbers a codeword": {"sub_dim": 12},
    "24 numbers a codeword": {"sub_dim": 24},
    "32 numbers a codeword, all there are": {"sub_dim": 32},
    "rotation left as dealt out (no rounds)": {"alternations": 0},
    "60 rounds": {"alternations": 60},
    "patches of 16×16, 24 codes": {"quantizer": "JPQ-192", "patch_size": 16},
}


def load(folder: Path) -> list[Tensor]:
    """Images of a folder, cut to sides that every variant takes."""
    return [Photo(image, SIDE).tensor for image in read_images(folder).values()]


def row(name: str, codec: ImageCodec, seconds: float, images: list[Tensor]) -> str:
    """Quality on images, as a line of Markdown."""
    decoded = [codec.decode(codec.encode(image[None]))[0] for image in images]
    pairs = list(zip(images, decoded, strict=True))
    decibels, similarity = (fmean(float(f(a, b)) for a, b in pairs) for f in (psnr, ssim))
    return f"| {name} | {decibels:.2f} | {similarity:.3f} | {seconds:.0f} |"


def main() -> None:
    """Fit, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="folders to fit on")
    parser.add_argument("--test", type=Path, required=True, help="folder to measure on")
    parser.add_argument("--max-patches", type=int, default=200_000, help="patches to fit on")
    options = parser.parse_args()
    train = [image for folder in options.train for image in load(folder)]
    test = load(options.test)
    print(f"| variant, {options.max_patches:,} patches | PSNR | SSIM | seconds to fit |")
    print("|---|---|---|---|", flush=True)
    start = time.perf_counter()
    paper = fit_codec(train, "OPQ-32-8-8", max_patches=options.max_patches)
    print(row("OPQ-32-8-8", paper, time.perf_counter() - start, test), flush=True)
    for name, choice in tqdm(CHOICES.items(), desc="variants"):
        start = time.perf_counter()
        codec = fit_joint_codec(train, max_patches=options.max_patches, **choice)
        print(row(name, codec, time.perf_counter() - start, test), flush=True)


if __name__ == "__main__":
    main()
