"""Seconds and quality of a model's samples, by sampler, steps and guidance.

    python benchmarks/sampling.py eurosat-64 --data SHARDS [--samples 500] [--steps 4 8 16 25 50]
    python benchmarks/sampling.py eurosat-64 TUNED --sampler dpm++ consistency --picture OUT.png
    python benchmarks/sampling.py eurosat-64 --near 200 --samples 8
    python benchmarks/sampling.py eurosat-64 --data SHARDS --to-training --steps 25 \
        --sampler dpm++ --guidance 1 1.5 2 2:0.1-0.7

Seconds are processor time of one thread for an image, decoding included. Scores are of samples to
as many held-out images of SHARDS, and need the extra `eval`; `--to-training` takes training images,
to choose how a model is sampled without a look at those held out. `2:0.1-0.7` is guidance of scale
2 at those t/T alone. Classes take turns. `--near` adds the mean PSNR to images that so many steps
of DDIM draw from the same noise. A model tuned for consistency is drawn by that alone. The picture
has the same seeds in its columns.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_mbldm.data import ShardDataModule
from lit_mbldm.metrics.fidelity import FeatureSet, compare
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import check_path, save, table
from lit_mbldm.training import DiffusionModule
from lit_mbldm.zoo import load_pretrained

BATCH, SHOWN = 50, 10


class Judge:
    """Scores images against real ones of the shards, held-out or training images."""

    columns = ("KID × 10³", "precision", "recall")

    def __init__(self, shards: str, count: int, training: bool) -> None:
        self.network = InceptionFeatures()
        data = ShardDataModule(shards, batch_size=BATCH)
        real = data.training_set(count) if training else data.reference(count)
        self.reference = self._features(batch["images"] for batch in real.batches)

    def _features(self, batches: Iterator[Tensor]) -> FeatureSet:
        return FeatureSet.of(torch.cat([self.network(batch) for batch in batches]))

    def score(self, images: Tensor) -> list[str]:
        """KID with its standard error, precision and recall."""
        found = compare(self.reference, self._features(iter(images.split(BATCH))))
        kid = f"{1000 * found.kid:.1f} ± {1000 * found.kid_std:.1f}"
        return [kid, f"{found.precision:.2f}", f"{found.recall:.2f}"]


def guidance(text: str) -> dict[str, Any]:
    """Arguments of `sample` from SCALE or SCALE:LOW-HIGH."""
    scale, _, interval = text.partition(":")
    how: dict[str, Any] = {"guidance": float(scale)}
    if interval:
        low, high = interval.split("-")
        how["guidance_interval"] = (float(low), float(high))
    return how


def samplers(model: DiffusionModule, wanted: list[str]) -> list[str]:
    """The samplers that a model is drawn with."""
    known = model.process.samplers
    return [one for one in (known[-1:] if "consistency" in known else known) if one in wanted]


def main() -> None:
    """Draw with each sampler, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", help="shards, for scores against their held-out images")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sampler", nargs="+", default=["ddpm", "ddim", "dpm++", "consistency"])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 25, 50])
    parser.add_argument("--to-training", action="store_true", help="score against training images")
    parser.add_argument("--guidance", nargs="+", default=["1.5"], metavar="SCALE[:LOW-HIGH]")
    parser.add_argument("--near", type=int, metavar="STEPS")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    torch.set_num_threads(1)
    models = {name: load_pretrained(name) for name in options.models}
    judge = Judge(options.data, options.samples, options.to_training) if options.data else None

    def draw(name: str, sampler: str, steps: int, scale: str) -> Tensor:
        how = {"sampler": sampler, "batch_size": BATCH, **guidance(scale)}
        return models[name].sample(options.samples, steps, **how)

    def psnr(images: Tensor, exact: Tensor) -> str:
        error = (images.float() - exact).square().flatten(1).mean(1)
        return f"{(10 * torch.log10(255**2 / error)).mean():.1f}"

    exact = {
        (name, scale): draw(name, "ddim", options.near, scale)
        for name, scale in product(models, options.guidance)
        if options.near
    }
    columns = [*(Judge.columns if judge else ()), *["PSNR, dB"] * bool(exact)]
    print("| model, sampler | steps | guidance | seconds an image | " + " | ".join(columns) + " |")
    print("|---" * (4 + len(columns)) + "|")
    drawn = {}
    for steps, (name, model), scale in product(options.steps, models.items(), options.guidance):
        for sampler in samplers(model, options.sampler):
            start = time.process_time()
            images = draw(name, sampler, steps, scale)
            seconds = (time.process_time() - start) / options.samples
            cells = [f"{Path(name).name}, {sampler}", str(steps), scale, f"{seconds:.3f}"]
            cells += judge.score(images) if judge else []
            cells += [psnr(images, exact[name, scale])] if exact else []
            print("| " + " | ".join(cells) + " |", flush=True)
            drawn[", ".join(cells[:3])] = images[:SHOWN]
    if options.picture:
        save(table(torch.stack(list(drawn.values())), list(drawn)), options.picture)


if __name__ == "__main__":
    main()
