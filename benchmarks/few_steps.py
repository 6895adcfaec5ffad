"""A model's few steps beside those of the same model after consistency tuning.

    python benchmarks/few_steps.py eurosat-64 TUNED --data data/eurosat_64 --picture OUT.png

TUNED is the run of `eurosat64_few_steps`. KID is of samples to as many held-out images. The picture
has the same seeds in its columns. Needs the extra `eval`, or no `--data`.
"""

import argparse
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
STEPS = (1, 2, 4, 8)


def held_out(shards: str, count: int) -> Tensor:
    """The first held-out images of shards, (N, 3, H, W) uint8."""
    batches = ShardDataModule(shards, batch_size=BATCH).reference(count).batches
    return torch.cat([batch["images"] for batch in batches])


def main() -> None:
    """Print a table, and draw a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tuned")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--data", help="shards, for KID to their validation part")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    model, tuned = load_pretrained(options.model), load_pretrained(options.tuned)
    rows: dict[str, tuple[DiffusionModule, str, int]] = {"dpm++, 25 steps": (model, "dpm++", 25)}
    for steps in STEPS:
        rows[f"dpm++, {steps}"] = model, "dpm++", steps
        rows[f"consistency, {steps}"] = tuned, "consistency", steps
    drawn = {}
    if options.data:
        network = InceptionFeatures()
        real = held_out(options.data, options.samples).split(BATCH)
        reference = FeatureSet.of(torch.cat([network(batch) for batch in real]))
        print("| sampler, steps | KID × 10³ |\n|---|---|")
    for name, (one, sampler, steps) in rows.items():
        count = options.samples if options.data else SHOWN
        made = one.sample(
            count, steps, batch_size=BATCH, sampler=sampler, guidance=options.guidance
        )
        drawn[name] = made[:SHOWN]
        if options.data:
            features = torch.cat([network(batch) for batch in made.split(BATCH)])
            found = compare(reference, FeatureSet.of(features))
            print(f"| {name} | {1000 * found.kid:.1f} ± {1000 * found.kid_std:.1f} |", flush=True)
    if options.picture:
        save(table(torch.stack(list(drawn.values())), list(drawn)), options.picture)


if __name__ == "__main__":
    main()
