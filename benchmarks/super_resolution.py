"""Super-resolution by a model, by a codec's decoder, and by interpolation: PSNR, SSIM and KID.

    python benchmarks/super_resolution.py runs/small64_upscaler/version_0 data/eurosat_64/val

Held-out images of the model's size are made smaller by each scale, antialiased, and enlarged again
by each. KID is to the images themselves, and needs the extra `eval`. The picture has the images
above what each makes of them at the last scale.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from kid_floor import BATCH, describe
from torch import Tensor

from lit_mbldm.codecs.sizes import resized
from lit_mbldm.codecs.upscale import upscale
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.load import load_codec
from lit_mbldm.images import fit_square
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.metrics.fidelity import compare
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import check_path, save, table, to_tensor
from lit_mbldm.zoo import load_pretrained

SHOWN = 8


def main() -> None:
    """Print a row for each scale and way, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="an Upscaler")
    parser.add_argument("images", type=Path, help="folder, .tar or .zip of held-out images")
    parser.add_argument("--codec", default="pixels+scale", help="with an implicit decoder")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--max-images", type=int, default=250, help="drawn at random")
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--picture", type=Path, help="PNG to write")
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    torch.set_num_threads(1)
    model, codec = load_pretrained(options.model), load_codec(options.codec)
    size = (model.image_size, model.image_size)
    found = read_images(options.images, options.max_images).values()
    images = torch.stack([to_tensor(fit_square(picture, size[0])) for picture in found])
    how = {"sampler": options.sampler, "steps": options.steps, "progress": True}
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "interpolation": lambda small: resized(small, size),
        options.codec: lambda small: torch.stack([upscale(codec, one, size) for one in small]),
        type(model).__name__: lambda small: torch.cat(
            [model.upscale(some, size, seed=i, **how) for i, some in enumerate(small.split(BATCH))]
        ),
    }
    network = InceptionFeatures()
    real = describe(images, network, "originals")
    print("| scale | by | PSNR, dB | SSIM | KID × 10³ |\n|---|---|---|---|---|")
    for scale in options.scales:
        small, rows = resized(images, (size[0] // scale, size[1] // scale)), [images[:SHOWN]]
        for name, way in ways.items():
            made = way(small)
            rows.append(made[:SHOWN])
            quality = f"{psnr(made, images).mean():.2f} | {ssim(made, images).mean():.3f}"
            scores = compare(real, describe(made, network, f"{name}, {scale}×"))
            kid = f"{1000 * scores.kid:.1f} ± {1000 * scores.kid_std:.1f}"
            print(f"| {scale}× | {name} | {quality} | {kid} |", flush=True)
    if options.picture:
        save(table(torch.stack(rows), ["original", *ways]), options.picture)


if __name__ == "__main__":
    main()
