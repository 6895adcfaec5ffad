"""Does fine-tuning pay? A model that starts from an entry's weights, and one from scratch.

python benchmarks/fine_tuning.py IMAGES WORK [--start eurosat-64] [--minutes 3] [--samples 128]

Both have the entry's network and recipe, a batch of 16, and learn the same images for the same
minutes of processor time on one thread, in float32. Samples are compared with one image in ten,
which neither learned from. Needs the extra `eval`.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from processor_time import ProcessorTime
from torch import Tensor

from lit_mbldm.data import ShardDataModule, write_shards
from lit_mbldm.entries.tree import describe
from lit_mbldm.metrics.fidelity import fidelity
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import grid, to_pil
from lit_mbldm.training import DiffusionModule, PowerEMA
from lit_mbldm.training.module import CodecModule
from lit_mbldm.zoo import load_pretrained


def fresh(entry: CodecModule) -> DiffusionModule:
    """The entry's model as before its training, without labels."""

    def make(tree: object) -> object:
        if not (isinstance(tree, dict) and "class_path" in tree):
            return tree
        room, _, name = tree["class_path"].rpartition(".")
        kind = getattr(__import__(room, fromlist=[name]), name)
        return kind(**{key: make(value) for key, value in tree["init_args"].items()})

    tree = describe(entry)
    own = {"codec": entry.codec, "class_names": None, "decay": None, "warmup_steps": 20}
    tree["init_args"] |= own
    made = make(tree)
    assert isinstance(made, DiffusionModule)
    return made


def train(
    data: ShardDataModule, start: str, minutes: float, fine_tuned: bool
) -> tuple[int, DiffusionModule]:
    """Steps taken, and the model."""
    L.seed_everything(0)
    entry = load_pretrained(start)
    model = fresh(entry)
    if fine_tuned:
        model.start_from(entry)
    trainer = L.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[PowerEMA(), ProcessorTime(minutes, decay=True)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    return trainer.global_step, model.eval()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    parser.add_argument("work", type=Path)
    parser.add_argument("--start", default="eurosat-64")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3])
    parser.add_argument("--samples", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shards = options.work / "shards"
    if not shards.exists():
        write_shards(options.images, shards, load_pretrained(options.start).image_size, val=0.1)
    data = ShardDataModule(str(shards), batch_size=16)
    data.setup()
    network = InceptionFeatures()

    def features(batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([network(batch) for batch in batches])

    real = features(batch["images"] for batch in data.val_dataloader())
    print("| minutes | start | steps | KID × 1000 |\n|---|---|---|---|")
    for minutes in options.minutes:
        for fine_tuned in (False, True):
            steps, model = train(data, options.start, minutes, fine_tuned)
            drawn = model.sample(options.samples, steps=15, sampler="dpm++")
            start = options.start if fine_tuned else "scratch"
            to_pil(grid(drawn[:64])).save(options.work / f"{start}-{minutes:g}.png")
            found = fidelity(real, features(drawn.split(16)))
            kid, error = 1000 * found.kid, 1000 * found.kid_std
            print(f"| {minutes:g} | {start} | {steps:,} | {kid:.0f} ± {error:.0f} |", flush=True)


if __name__ == "__main__":
    main()
