"""Rate and distortion: the codecs here, and JPEG, WebP and AVIF at the same rates.

    python benchmarks/codec_rd.py --train IMAGES [IMAGES ...] --test IMAGES [IMAGES ...]

IMAGES is a folder of images or of tar shards, a .tar or a .zip. Every kind of codec is fitted on
all images of --train at 24, 32, 48, 64 and 96 bits a patch of 8×8 pixels; those named by --codec
are measured beside them as they are. Pillow's formats, with its own settings, take for each image
the largest file, headers included, that is not above the rate. Figures are means over the images of
one --test, cut to whole patches: bits a pixel, true RGB PSNR (100 dB at most), SSIM (7×7 window)
and MS-SSIM (from 176 pixels a side on). Milliseconds, of processor time on one
thread, are medians over images of medians of three runs, from and to pixels in memory. Beside
other processes they still swing: two JPQ-48 in one run differed by 40 %. Needs the extra `bench`.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from coding import PATCH_PIXELS, QUALITIES, Coder, Photo, Point, measure, ours, pillow
from PIL import AvifImagePlugin
from rd_plot import draw
from tqdm import tqdm

from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.load import load_codec
from lit_mbldm.pictures import check_path, to_tensor

# bits of Y, Cb and Cr for the codecs that take the channels one by one
RATES = {24: "8-8-8", 32: "16-8-8", 48: "32-8-8", 64: "48-8-8", 96: "64-16-16"}
KINDS = ("PQ", "OPQ", "RQ", "JPQ")


def table(points: Sequence[Point], num_images: int) -> str:
    """Markdown, by rate and quality; rates that a format did not reach are marked and explained."""
    lines = [
        "| bits a patch | codec | bits a pixel | PSNR | SSIM | MS-SSIM | encode, ms | decode, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for p in sorted(points, key=lambda p: (p.coder.bits, p.psnr)):
        scales = "–" if math.isnan(p.ms_ssim) else f"{p.ms_ssim:.4f}"
        lines.append(
            f"| {p.coder.bits:g} | {p.coder.name} | {p.rate:.3f}{' †' if p.above else ''}"
            f" | {p.psnr:.2f} | {p.ssim:.3f} | {scales} | {p.encode_ms:.1f} | {p.decode_ms:.1f} |"
        )
        if p.above:
            notes.append(
                f"† {p.coder.name}, {p.coder.bits:g} bits a patch: at its lowest quality {p.above}"
                f" of {num_images} images are above {p.coder.bits / PATCH_PIXELS:g} bits a pixel."
            )
    return "\n".join([*lines, "", *notes] if notes else lines)


def fitted(train: Sequence[Path], max_patches: int) -> list[Coder]:
    """Every kind of codec at every rate."""
    images = [to_tensor(image) for source in train for image in read_images(source).values()]
    names = [
        (kind, f"{kind}-{bits}" if kind == "JPQ" else f"{kind}-{split}")
        for bits, split in RATES.items()
        for kind in KINDS
    ]
    coders = []
    for kind, name in (progress := tqdm(names, unit="codec")):
        progress.set_description(f"fitting {name}")
        coders.append(ours(name, fit_codec(images, name, max_patches=max_patches), kind))
    return coders


def main() -> None:
    """Fit, then measure, print and draw one set of test images after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="images to fit on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="images to measure on")
    parser.add_argument("--codec", nargs="*", default=[], help="names or paths, measured beside")
    parser.add_argument("--max-patches", type=int, default=200_000, help="patches to fit on")
    parser.add_argument("--max-images", type=int, help="images of each --test, drawn at random")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("codec_rd.png"),
        help="PNG of the first --test; the others' names are added to it",
    )
    options = parser.parse_args()
    check_path(options.picture)
    torch.set_num_threads(1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # to save and to open
    loaded = [(Path(name).name, load_codec(name)) for name in options.codec]
    side = math.lcm(8, *(codec.patch_size for _, codec in loaded))
    tests = [
        [Photo(image, side) for image in read_images(source, options.max_images).values()]
        for source in options.test
    ]
    coders = fitted(options.train, options.max_patches)
    coders += [pillow(file_format, bits) for bits in RATES for file_format in QUALITIES]
    coders += [ours(name, codec) for name, codec in loaded]
    training = " and ".join(source.name for source in options.train)
    for i, (source, photos) in enumerate(zip(options.test, tests, strict=True)):
        with tqdm(total=len(coders) * len(photos), unit="image") as progress:
            points = [measure(coder, photos, progress) for coder in coders]
        megapixels = median(photo.pixels for photo in photos) / 1e6
        name = source.stem if source.is_file() else source.resolve().name
        title = f"{name}, {len(photos)} images; PQ, OPQ, RQ and JPQ fitted on {training}"
        print(f"\n{title}, median {megapixels:.2f} megapixels\n\n{table(points, len(photos))}\n")
        path = options.picture
        if i > 0:
            path = path.with_name(f"{path.stem}_{name}{path.suffix}")
        draw(points, title, path)
        print(f"Picture: {path}", flush=True)


if __name__ == "__main__":
    main()
