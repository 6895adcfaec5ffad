"""The best scores that codes allow: KID and FID of a codec's reconstructions to their originals.

    python benchmarks/kid_floor.py IMAGES --codec opq-32-8-8 jpq-48 --size 96 192

IMAGES is a folder of images or of tar shards, a .tar or a .zip. Images are cropped to squares and
resized as `lit-mbldm shards --size` does, but not stored as JPEG. Reconstructions are compared with
their own originals: FID is then lower than to other images, KID hardly differs. Which images are
drawn moves the KID of 250 by several units. Needs the extra `eval`.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data.images import fit_square
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.load import load_codec
from lit_mbldm.metrics.codec_quality import psnr
from lit_mbldm.metrics.fidelity import FeatureSet, compare
from lit_mbldm.metrics.inception import InceptionFeatures, describe_features
from lit_mbldm.pictures import to_tensor

BATCH = 10


def describe(images: Tensor, network: InceptionFeatures, note: str) -> FeatureSet:
    """Features of images (N, 3, H, W)."""
    batches = tqdm(images.split(BATCH), desc=note, unit=f"{BATCH} images")
    return FeatureSet.of(torch.cat([network(batch) for batch in batches]))


def reconstructions(codec: ImageCodec, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) through the codec."""
    return torch.cat([codec.decode(codec.encode(batch)) for batch in images.split(BATCH)])


def main() -> None:
    """Print a row for each size and codec."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder, .tar or .zip of images")
    parser.add_argument("--codec", nargs="+", required=True, help="names or paths")
    parser.add_argument("--size", type=int, nargs="+", default=[96, 192], help="sides in pixels")
    parser.add_argument("--max-images", type=int, default=250, help="images, drawn at random")
    options = parser.parse_args()
    codecs = {name: load_codec(name) for name in options.codec}
    for codec in codecs.values():
        for size in options.size:
            codec.latent_shape(size, size)
    pictures: list[Image.Image] = list(read_images(options.images, options.max_images).values())
    network = InceptionFeatures()
    rows = []
    for size in options.size:
        originals = torch.stack([to_tensor(fit_square(image, size)) for image in pictures])
        real = describe(originals, network, f"originals, {size}×{size}")
        for name, codec in codecs.items():
            images = reconstructions(codec, originals)
            scores = compare(real, describe(images, network, f"{name}, {size}×{size}"))
            decibels = float(psnr(images, originals).mean())
            row = f"| {size}×{size} | {name} | {codec.bits_per_pixel:.3f} | {decibels:.2f}"
            rows.append(f"{row} | {1000 * scores.kid:.1f} | {scores.fid:.1f} |")
            tqdm.write(rows[-1])
    print(f"\n{len(pictures)} images of {options.images.resolve().name}")
    print(f"Features: {describe_features(network)}\n")
    print("| size | codec | bits a pixel | PSNR, dB | KID × 10³ | FID |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
