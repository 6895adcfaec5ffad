"""Inpainting of images' middles, beside unconditional samples pasted into the same place.

    python benchmarks/inpainting.py IMAGES --count 200 --steps 25 --picture OUT.png

Half of the images are edited, the others are what KID compares with. Needs the extra `eval`.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.images import fit_square
from lit_mbldm.metrics.fidelity import kid
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import check_path, save, table, to_tensor
from lit_mbldm.zoo import load_pretrained

BATCH, SHOWN = 50, 8


def psnr_where(a: Tensor, b: Tensor, kept: Tensor) -> float:
    """PSNR in dB over the pixels (H, W) bool of all images (B, 3, H, W) uint8."""
    errors = (a.double() - b.double())[..., kept]
    return float(10 * torch.log10(255**2 / errors.square().mean()))


def seam(images: Tensor, mask: Tensor) -> float:
    """Mean difference of neighbours across the mask's border, in grey levels."""
    jumps = []
    for one, where in ((images, mask), (images.mT, mask.mT)):
        crossing = where[1:] != where[:-1]
        jumps.append((one[..., 1:, :].double() - one[..., :-1, :].double()).abs()[..., crossing])
    return float(torch.cat(jumps, -1).mean())


def main() -> None:
    """Print a table, and draw a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder, zip or tars")
    parser.add_argument("--model", default="eurosat-64")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--resamplings", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    model = load_pretrained(options.model)
    side = model.image_size
    found = read_images(options.images, 2 * options.count).values()
    photos = torch.stack([to_tensor(fit_square(image, side)) for image in found])
    edited, others = photos[::2], photos[1::2]
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
    start, settings = time.process_time(), {"steps": options.steps, "sampler": "ddim"}
    filled = model.inpaint(edited, mask, resamplings=options.resamplings, **settings)
    seconds = (time.process_time() - start) / len(edited)
    samples = model.sample(len(edited), seed=1, **settings)
    made = {
        "the images themselves": edited,
        "the codec's reconstructions": model.codec.decode(model.codec.encode(edited)),
        "inpainted": filled,
        "samples pasted in": torch.where(mask, samples, edited),
    }
    network = InceptionFeatures()

    def features(images: Tensor) -> Tensor:
        return torch.cat([network(part) for part in images.split(BATCH)]).double()

    real = features(others)
    print(f"{len(edited)} images, {seconds:.2f} s of a core for one inpainted")
    print("| | PSNR of kept pixels, dB | KID × 10³ | step at the border |\n|---|---|---|---|")
    for name, images in made.items():
        value, error = kid(real, features(images))
        kept, step = psnr_where(images, edited, ~mask), seam(images, mask)
        score = f"{1000 * value:.1f} ± {1000 * error:.1f}"
        print(f"| {name} | {kept:.1f} | {score} | {step:.1f} |", flush=True)
    if options.picture:
        shown = torch.stack([one[:SHOWN] for one in made.values()])
        save(table(shown, list(made)), options.picture)


if __name__ == "__main__":
    main()
