"""The best scores that a codec allows: those of its reconstructions, to their originals.

    python benchmarks/kid_floor.py IMAGES --codec jpq-48 JPQ-32:4 --channels 0 12 --size 64 96

IMAGES is a folder of images or of tar shards, a .tar or a .zip. `JPQ-32:4` fits that quantiser with
patches of 4×4 pixels on as many other images of the folder. `--channels 12` measures images decoded
from 12 coefficients a patch, scaled on those other images (`CoefficientLatent`); 0 measures decoded
codes, and `--refiner MODEL` what a refiner or a generative decoder makes of those of its codec.
Images are cropped to squares and resized as `lit-mbldm shards --size` does, but not stored as JPEG.
Reconstructions are compared with their own originals: FID is then lower than to other images, KID
hardly differs. Which images are drawn moves the KID of 250 by several units. Milliseconds are
the processor time to encode one image, in batches of 10. Needs the extra `eval`, or `--no-kid`.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from timing import medians
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs import CoefficientLatent, ImageCodec
from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.entry_config import list_pretrained
from lit_mbldm.entries.load import load_codec
from lit_mbldm.images import fit_square
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.metrics.fidelity import FeatureSet, compare
from lit_mbldm.metrics.inception import InceptionFeatures, describe_features
from lit_mbldm.pictures import check_path, save, table, to_tensor
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import GenerativeDecoder
from lit_mbldm.training.refiner import RefinerModule, load_refiner

BATCH = 10


@dataclass(frozen=True)
class Made:
    """Reconstructions of a codec.

    Attributes:
        codec: its name.
        source: what they were decoded from.
        numbers: that it keeps a pixel.
        images: (N, 3, H, W) uint8.
        milliseconds: processor time to encode one image; None where nothing is quantised.
    """

    codec: str
    source: str
    numbers: float
    images: Tensor
    milliseconds: float | None


def describe(images: Tensor, network: InceptionFeatures, note: str) -> FeatureSet:
    """Features of images (N, 3, H, W)."""
    batches = tqdm(images.split(BATCH), desc=note, unit=f"{BATCH} images")
    return FeatureSet.of(torch.cat([network(batch) for batch in batches]))


def find_codec(name: str, others: Tensor) -> ImageCodec:
    """Fit a codec of a name with a patch size on images (N, 3, H, W), or load one."""
    quantizer, _, patch = name.partition(":")
    if not patch:
        return load_codec(name)
    return fit_codec(list(others), quantizer, patch_size=int(patch), max_patches=65_536)


def readable(name: str, codec: ImageCodec) -> str:
    """What people call a codec of that name or path."""
    if ":" in name:
        return f"{codec.quantizer} fitted, patches of {codec.patch_size}"
    return name if name in list_pretrained() else codec.quantizer


def reconstruct(codec: ImageCodec, images: Tensor, others: Tensor, channels: int) -> Tensor:
    """Images (N, 3, H, W) through the codec, or through a latent of so many coefficients."""
    if not channels:
        return torch.cat([codec.decode(codec.encode(batch)) for batch in images.split(BATCH)])
    latent = CoefficientLatent(channels)
    latent.use(codec)
    latent.fit(latent.moments(codec.encode(others), others))
    parts = [(codec.encode(batch), batch) for batch in images.split(BATCH)]
    return torch.cat([latent.decode(latent.to_latent(*part)) for part in parts])


def encode_milliseconds(codec: ImageCodec, images: Tensor) -> float:
    """Processor time to encode one image."""
    batch = images[:BATCH]
    found = medians({"encode": lambda: codec.encode(batch)}, 5, time.process_time)
    return 1000 * found["encode"] / len(batch)


def refine(refiner: RefinerModule, decoded: Tensor) -> Tensor:
    """Images (N, 3, H, W) as a refiner or a generative decoder draws them, each with own noise."""
    parts = []
    for first in tqdm(range(0, len(decoded), BATCH), desc="refining", unit=f"{BATCH} images"):
        batch = decoded[first : first + BATCH]
        streams = SampleStreams([(0, first + place) for place in range(len(batch))])
        parts.append(refiner.refine(batch, streams))
    return torch.cat(parts)


def reconstructions(options: argparse.Namespace, images: Tensor, others: Tensor) -> Iterator[Made]:
    """What every codec, number of channels and refiner makes of images."""
    for name in options.codec:
        codec = find_codec(name, others)
        milliseconds = encode_milliseconds(codec, images)
        for channels in options.channels:
            source = f"{channels} coefficients" if channels else "codes"
            made = reconstruct(codec, images, others, channels)
            numbers = (channels or codec.num_codes) / codec.patch_size**2
            spent = None if channels else milliseconds
            yield Made(readable(name, codec), source, numbers, made, spent)
    for name in options.refiner:
        refiner = load_refiner(name)
        codec = refiner.codec
        drawn = isinstance(refiner, GenerativeDecoder)
        source = f"codes, {'generative decoder' if drawn else 'refined'}"
        made = refine(refiner, reconstruct(codec, images, others, 0))
        numbers = codec.num_codes / codec.patch_size**2
        yield Made(codec.quantizer, source, numbers, made, encode_milliseconds(codec, images))


def main() -> None:
    """Print a row for each size, codec, number of channels and refiner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder, .tar or .zip of images")
    parser.add_argument("--codec", nargs="*", default=[], help="names, paths or NAME:PATCH")
    parser.add_argument("--channels", type=int, nargs="+", default=[0], help="coefficients a patch")
    parser.add_argument("--refiner", nargs="*", default=[], help="models, of codes of their codec")
    parser.add_argument("--size", type=int, nargs="+", default=[96, 192], help="sides in pixels")
    parser.add_argument("--max-images", type=int, default=250, help="images, drawn at random")
    parser.add_argument("--picture", type=Path, help="PNG to write: ten images of the last size")
    parser.add_argument("--no-kid", action="store_true", help="measure PSNR and SSIM alone")
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    drawn = read_images(options.images, 2 * options.max_images)
    pictures: list[Image.Image] = list(drawn.values())
    network = None if options.no_kid else InceptionFeatures()
    header = "| size | codec | decoded from | numbers a pixel | ms to encode | PSNR, dB | SSIM |"
    print(header if network is None else f"{header} KID × 10³ | FID |")
    print("|---" * (7 if network is None else 9) + "|")
    for size in options.size:
        images = torch.stack([to_tensor(fit_square(image, size)) for image in pictures])
        originals, others = images[::2], images[1::2]
        rows = {"original": originals[:BATCH]}
        real = network and describe(originals, network, f"originals, {size}×{size}")
        for found in reconstructions(options, originals, others):
            row = f"| {size}×{size} | {found.codec} | {found.source} | {found.numbers:.3f}"
            row += " | –" if found.milliseconds is None else f" | {found.milliseconds:.1f}"
            for measure, digits in ((psnr, 2), (ssim, 3)):
                row += f" | {float(measure(found.images, originals).mean()):.{digits}f}"
            if network and real:
                scores = compare(real, describe(found.images, network, row))
                row += f" | {1000 * scores.kid:.1f} | {scores.fid:.1f}"
            print(row + " |", flush=True)
            rows[f"{found.codec}, {found.source}".replace(", codes", "")] = found.images[:BATCH]
        if options.picture:
            save(table(torch.stack([*rows.values()]), [*rows]), options.picture)
    features = describe_features(network) if network else "none"
    print(f"\n{len(originals)} images of {options.images.resolve().name}; features: {features}")


if __name__ == "__main__":
    main()
