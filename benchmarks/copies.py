"""Does the copy check find planted copies? Held-out images, of which a part are copies.

    python benchmarks/copies.py IMAGES --size 64 --codec opq-32-8-8

IMAGES is a folder of images or of tar shards, a .tar or a .zip. A tenth of them are held out to
say what is no copy, another tenth stand for a model's samples; of these, parts are replaced by
training images: shifted by a pixel, through the codec, darker, mirrored, and all of that at once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.load import load_codec
from lit_mbldm.images import fit_square
from lit_mbldm.metrics.nearest import FIXED_RATIO, NearestImages, copy_threshold
from lit_mbldm.pictures import to_tensor

BATCH = 500
PLANTED = (0.0, 0.1, 0.5, 1.0)


def changes(codec_name: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """What hides copies: images (N, 3, H, W) uint8 to changed ones."""
    codec = load_codec(codec_name)
    single: dict[str, Callable[[Tensor], Tensor]] = {
        "shifted by a pixel": lambda images: images.roll((1, 1), (2, 3)),
        f"through {codec_name}": lambda images: codec.decode(codec.encode(images)),
        "a tenth darker": lambda images: (images * 0.9).byte(),
        "mirrored": lambda images: images.flip(3),
    }

    def everything(images: Tensor) -> Tensor:
        for change in single.values():
            images = change(images)
        return images

    return {"unchanged": lambda images: images, **single, "all of these": everything}


def ratios(images: Tensor, training: Tensor) -> Tensor:
    """The ratios (N,) of images among training images."""
    search = NearestImages(images)
    for batch in training.split(BATCH):
        search.add(batch)
    return search.ratios()


def main() -> None:
    """Print a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder, .tar or .zip of images")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--codec", default="opq-32-8-8")
    parser.add_argument("--max-images", type=int, default=5000, help="taken at random")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = read_images(options.images, options.max_images).values()
    images = torch.stack([to_tensor(fit_square(image, options.size)) for image in pictures])
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    n = len(images) // 10
    held_out, samples, training = images.tensor_split([n, 2 * n])
    of_others, of_samples = ratios(torch.cat([held_out, samples]), training).chunk(2)
    threshold = copy_threshold(of_others)
    print(f"\n{n} samples and {n} held-out images, {len(training)} training images of"
          f" {options.images.resolve().name}, {options.size}×{options.size}")  # fmt: skip
    print(f"Held-out images: ratio {of_others.median():.2f} in the middle, 1 % at or below"
          f" {threshold:.2f}, {(of_others <= FIXED_RATIO).float().mean():.1%} at or below"
          f" {FIXED_RATIO:g}\n")  # fmt: skip
    print(f"| copies | {' | '.join(f'{p:.0%} planted' for p in PLANTED)} |")
    print("|---" * (1 + len(PLANTED)) + "|")
    for name, change in changes(options.codec).items():
        planted = ratios(change(training[:n]), training)
        found = []
        for share in PLANTED:
            cut = round(share * n)
            mixed = torch.cat([planted[:cut], of_samples[cut:]])
            found.append(f"{(mixed <= threshold).float().mean():.1%}")
        print(f"| {name} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
