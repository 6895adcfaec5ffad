"""Seconds and quality of a model's samples, by sampler and steps.

    python benchmarks/sampling.py eurosat-64 --data SHARDS [--samples 500] [--steps 4 8 16 25 50]
    python benchmarks/sampling.py eurosat-64 TUNED --sampler dpm++ consistency --picture OUT.png
    python benchmarks/sampling.py eurosat-64 --near 200 --samples 8

Seconds are processor time of one thread for an image, decoding included. KID is of samples to as
many held-out images of SHARDS, and needs the extra `eval`. `--near` adds the mean PSNR to images
that so many steps of DDIM draw from the same noise. A model tuned for consistency is drawn by that
alone. The picture has the same seeds in its columns.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lit_mbldm.data import ShardDataModule
from lit_mbldm.metrics.fidelity import FeatureSet, compare
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import check_path, save, table
from lit_mbldm.training import DiffusionModule
from lit_mbldm.zoo import load_pretrained

BATCH, SHOWN = 50, 10


class Kid:
    """KID × 10³ of images to held-out ones."""

    def __init__(self, shards: str, count: int) -> None:
        self.network = InceptionFeatures()
        held_out = ShardDataModule(shards, batch_size=BATCH).reference(count).batches
        self.reference = self._features(batch["images"] for batch in held_out)

    def _features(self, batches: Iterator[Tensor]) -> FeatureSet:
        return FeatureSet.of(torch.cat([self.network(batch) for batch in batches]))

    def of(self, images: Tensor) -> str:
        """KID with its standard error."""
        found = compare(self.reference, self._features(iter(images.split(BATCH))))
        return f"{1000 * found.kid:.1f} ± {1000 * found.kid_std:.1f}"


def samplers(model: DiffusionModule, wanted: list[str]) -> list[str]:
    """The samplers that a model is drawn with."""
    known = model.process.samplers
    return [one for one in (known[-1:] if "consistency" in known else known) if one in wanted]


def main() -> None:
    """Draw with each sampler, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", help="shards, for KID to their held-out images")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sampler", nargs="+", default=["ddpm", "ddim", "dpm++", "consistency"])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 25, 50])
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--near", type=int, metavar="STEPS")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    torch.set_num_threads(1)
    models = {name: load_pretrained(name) for name in options.models}
    kid = Kid(options.data, options.samples) if options.data else None

    def draw(name: str, sampler: str, steps: int) -> Tensor:
        how = {"sampler": sampler, "guidance": options.guidance, "batch_size": BATCH}
        return models[name].sample(options.samples, steps, **how)

    def psnr(images: Tensor, exact: Tensor) -> str:
        error = (images.float() - exact).square().flatten(1).mean(1)
        return f"{(10 * torch.log10(255**2 / error)).mean():.1f}"

    exact = {name: draw(name, "ddim", options.near) for name in models if options.near}
    columns = ["KID × 10³"] * bool(kid) + ["PSNR, dB"] * bool(exact)
    print("| " + " | ".join(["model, sampler", "steps", "seconds an image", *columns]) + " |")
    print("|---" * (3 + len(columns)) + "|")
    drawn = {}
    for steps in options.steps:
        for name, model in models.items():
            for sampler in samplers(model, options.sampler):
                start = time.process_time()
                images = draw(name, sampler, steps)
                seconds = (time.process_time() - start) / options.samples
                cells = [f"{Path(name).name}, {sampler}", str(steps), f"{seconds:.3f}"]
                cells += [kid.of(images)] if kid else []
                cells += [psnr(images, exact[name])] if exact else []
                print("| " + " | ".join(cells) + " |", flush=True)
                drawn[f"{cells[0]}, {steps}"] = images[:SHOWN]
    if options.picture:
        save(table(torch.stack(list(drawn.values())), list(drawn)), options.picture)


if __name__ == "__main__":
    main()
