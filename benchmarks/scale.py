"""Any size from one latent: quality, likeness of sizes, seconds and memory by scale.

    python benchmarks/scale.py KODAK --codec jpq-48+scale --picture docs/scale.png

Each image of the folder is made smaller by a scale, encoded, and decoded at its first size: PSNR
and SSIM; of an implicit decoder beside interpolation of what its codec decodes. Sides are cut to
what scale and patches divide. SelfSSIM is the mean over pairs of 128, 160 and 192 pixels of images
encoded at 64, KID that of each size to the originals (the extra `eval`, or `--no-kid`). Seconds of
processor time and the growth of peak memory are those of decoding 512×512 pixels to the scale on
one thread, each in a process of its own. The picture shows the middle of the first image at three
sizes, and what the codec, and `pixels+scale`, make of the smallest.
"""

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from kid_floor import describe
from torch import Tensor
from torch.nn.functional import interpolate

from lit_mbldm.codecs import ImageCodec, ImplicitCodec
from lit_mbldm.codecs.sizes import resized
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.load import load_codec
from lit_mbldm.images import fit_square
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.metrics.fidelity import compare
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.metrics.scales import self_ssim
from lit_mbldm.pictures import check_path, save, table, to_tensor

SCALES = (1.5, 2.0, 2.7, 3.0, 4.0)
SIDES = (128, 160, 192)  # of latents of 64 pixels
SHOWN = (64, 96, 128, 192, 256)


def decode(codec: ImageCodec, codes: Tensor, size: tuple[int, int], plain: bool) -> Tensor:
    """Decode, without the implicit decoder if `plain`."""
    inner = codec.codec if plain and isinstance(codec, ImplicitCodec) else codec
    return inner.decode(codes, size)


def quality(codec: ImageCodec, images: list[Tensor], scale: float, plain: bool) -> list[float]:
    """Mean PSNR and SSIM over images (3, H, W), cut to what the scale and patches divide."""
    found = []
    for image in images:
        p = codec.patch_size
        low = tuple(int(side / scale) // p * p for side in image.shape[1:])
        size = tuple(round(side * scale) for side in low)
        high = image[None, :, : size[0], : size[1]]
        made = decode(codec, codec.encode(resized(high, low)), size, plain)
        found.append([float(psnr(made, high)), float(ssim(made, high))])
    return torch.tensor(found).mean(0).tolist()


def cost(name: str, scale: float, plain: bool) -> tuple[float, float]:
    """Processor seconds and mebibytes of decoding 512×512 pixels to the scale, in a new process."""
    torch.set_num_threads(1)
    codec = load_codec(name)
    shape = codec.latent_shape(512, 512)
    codes = torch.randint(codec.codebook_size, (1, *shape), dtype=torch.uint8)
    before = peak()
    start = time.process_time()
    with torch.inference_mode():
        decode(codec, codes, (round(512 * scale), round(512 * scale)), plain)
    seconds = time.process_time() - start
    return seconds, peak() - before


def peak() -> float:
    """The most memory that this process had, in MiB; getrusage's begins with its parent's."""
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kibibytes) / 1024


def measured(name: str, scale: float, plain: bool) -> tuple[float, float]:
    """`cost` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as new:
        return new.submit(cost, name, scale, plain).result()


def draw(names: Iterable[str], image: Tensor, path: Path) -> None:
    """Write the middle of an image (3, H, W) at five sizes above what codecs make of the first."""
    top, left = (max(side - SHOWN[-1], 0) // 2 for side in image.shape[1:])
    middle = image[None, :, top : top + SHOWN[-1], left : left + SHOWN[-1]]
    labels, rows = ["original"], [_row(partial(resized, middle))]
    for name in names:
        codec = load_codec(name)
        codes = codec.encode(resized(middle, (SHOWN[0], SHOWN[0])))
        labels += [name, "interpolated"]
        rows += [_row(partial(decode, codec, codes, plain=plain)) for plain in (False, True)]
    save(table(torch.stack(rows), labels, [f"{side} pixels" for side in SHOWN]), path)


def _row(make: Callable[[tuple[int, int]], Tensor]) -> Tensor:
    """An image at each size, enlarged to the same."""
    images = [make((side, side)).float() for side in SHOWN]
    return torch.cat([interpolate(one, [SHOWN[-1]] * 2, mode="nearest") for one in images]).byte()


def main() -> None:
    """Print the table, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--codec", default="jpq-48+scale", help="name or folder")
    parser.add_argument("--max-images", type=int, default=24)
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--no-kid", action="store_true", help="leave KID out")
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    codec = load_codec(options.codec)
    pictures = [*read_images(options.images, options.max_images).values()]
    images = [to_tensor(picture) for picture in pictures]
    names = {codec.quantizer: False, "bicubic": True} if isinstance(codec, ImplicitCodec) else {}
    names = names or {codec.quantizer: False}
    print("| scale | decoder | PSNR, dB | SSIM | seconds | MiB |\n|---|---|---|---|---|---|")
    for scale in SCALES:
        for name, plain in names.items():
            figures = quality(codec, images, scale, plain)
            seconds, memory = measured(options.codec, scale, plain)
            cells = f"{figures[0]:.2f} | {figures[1]:.3f} | {seconds:.2f} | {memory:.0f}"
            print(f"| {scale:g}× | {name} | {cells} |", flush=True)
    squares = torch.stack([to_tensor(fit_square(one, SIDES[-1])) for one in pictures])
    codes = codec.encode(resized(squares, (64, 64)))
    network = None if options.no_kid else InceptionFeatures()
    real = [network and describe(resized(squares, (n, n)), network, f"{n} pixels") for n in SIDES]
    for name, plain in names.items():
        sizes = [decode(codec, codes, (side, side), plain) for side in SIDES]
        found = self_ssim(sizes)
        alike = (found.sum() - found.trace()) / (found.numel() - len(found))
        line = f"\n{name}: SelfSSIM {float(alike):.4f}"
        for side, expected, made in zip(SIDES, real, sizes, strict=True):
            if network and expected:
                scores = compare(expected, describe(made, network, f"{name}, {side} pixels"))
                line += (
                    f", KID × 10³ at {side} {1000 * scores.kid:.1f} ± {1000 * scores.kid_std:.1f}"
                )
        print(line, flush=True)
    if options.picture:
        draw(dict.fromkeys((options.codec, "pixels+scale")), images[0], options.picture)


if __name__ == "__main__":
    main()
