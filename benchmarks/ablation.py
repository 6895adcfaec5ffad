"""What each choice in training gives: small models after equal processor minutes, three seeds each.

    python benchmarks/ablation.py EUROSAT WORK --record docs/ablation.json
    python benchmarks/ablation.py EUROSAT WORK --record docs/recipe.json --base-steps 1250

EUROSAT is a folder of labelled images or of tars of them, brought to 64×64; an eighth is held out.
The base row is what the others change in one thing: the first 12 coefficients of a codec fitted on
the training images, each scaled by the root of its deviation, a U-Net of two levels, v-prediction,
Muon, a learning rate that falls to zero, PowerEMA, labels and guidance. Every model trains for
minutes of processor time on one thread; to fit its codec and scale its latent comes before. With
`--base-steps` these are the minutes that so many steps of the base take, measured before each row,
so that one record may have rows of faster and of slower machines. Models of codes and bits have
also the variational bound of as many held-out images as there are samples, in bits a patch, beside
the entropy of each code by itself, which knows no neighbours. Each row and seed is written to the
record when it is scored, and the same command goes on with what is missing, also in several
processes with other `--seeds`. Rows that differ in sampling alone share the model, which is kept in
WORK. There `peer_ddpm.py` leaves samples of as many minutes, which get rows too, and
WORK/pictures has 64 samples of each. Needs the extra `eval`.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from ablation_record import Record
from ablation_rows import CLUSTERS, ROWS, Recipe
from kid_floor import describe, find_codec
from processor_time import ProcessorTime
from torch import Tensor

from lit_mbldm.cli.main import keep_memory
from lit_mbldm.cli.trainer import slow_in_half
from lit_mbldm.codecs import ImageCodec, PixelCodec
from lit_mbldm.data import ShardDataModule, encode_shards, write_shards
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.images import load_rgb
from lit_mbldm.metrics.codec_quality import codebook_usage
from lit_mbldm.metrics.fidelity import FeatureSet, compare
from lit_mbldm.metrics.inception import InceptionFeatures, features_fingerprint
from lit_mbldm.pictures import check_path, grid, save, table, to_tensor
from lit_mbldm.storage.tensor_file import read_tensors, write_tensors
from lit_mbldm.training import (
    BernoulliDiffusion,
    CategoricalDiffusion,
    ContinuousDiffusion,
    DiffusionModule,
    StageDiffusion,
)
from lit_mbldm.training.callbacks.bits import bits_a_patch
from lit_mbldm.training.callbacks.reference_features import default_cache

SIZE, HELD_OUT, FITTED = 64, 0.125, 1000
TIMED = 0.5  # minutes, to measure the base's step
SAMPLER, STEPS = "dpm++", 25
PRECISION = "32-true" if slow_in_half("cpu") else "bf16-mixed"
MODULES = BernoulliDiffusion, CategoricalDiffusion, ContinuousDiffusion, StageDiffusion


def tiles(images: ReferenceSet) -> Tensor:
    """All images of a set, (N, 3, H, W) uint8."""
    return torch.cat([batch["images"] for batch in images.batches])


class Models:
    """Models by row and seed, trained for minutes or read from WORK."""

    def __init__(self, source: Path, work: Path, minutes: float, base_steps: int | None) -> None:
        self.source, self.work, self.minutes, self.base_steps = source, work, minutes, base_steps
        write_shards(source, work / "images", SIZE, val=HELD_OUT)
        self.images = ShardDataModule(str(work / "images"))
        self.codec = cache(self._codec)

    def _codec(self, name: str) -> ImageCodec:
        if name == "pixels":
            return PixelCodec()
        return find_codec(name, tiles(self.images.training_set(FITTED)))

    def data(self, recipe: Recipe, seed: int) -> ShardDataModule:
        """The training data of a row, set up."""
        folder = self.work / "images"
        if recipe.labels == "clusters":
            images, folder = self.work / "unlabelled", self.work / "clusters"
            write_shards(self.source, images, SIZE, val=HELD_OUT, labels=False)
            encode_shards(str(images), folder, self.codec(recipe.codec), clusters=CLUSTERS)
        data = ShardDataModule(str(folder), batch_size=recipe.batch_size, seed=seed)
        data.setup()
        return data

    def budget(self) -> float:
        """Minutes of processor time to train a model on this machine, as fast as it is now."""
        if self.base_steps:
            data = self.data(ROWS["base"], seed=0)
            model = build(ROWS["base"], self.codec(ROWS["base"].codec), data.class_names)
            self.minutes = self.base_steps * TIMED / train(ROWS["base"], model, data, TIMED)
            print(f"{self.base_steps} steps of base take {self.minutes:.1f} minutes", flush=True)
        return self.minutes

    def get(self, name: str, data: ShardDataModule, seed: int) -> tuple[DiffusionModule, int]:
        """A row's model and its training steps."""
        recipe = ROWS[name]
        extent = f"{self.base_steps}-base-steps" if self.base_steps else f"{self.minutes:g}-minutes"
        folder = self.work / f"{extent}-{PRECISION}"
        path = folder / f"{recipe.model_of or name}-{seed}.safetensors"
        found = read_tensors(path)
        minutes = self.budget() if found is None else 0.0
        L.seed_everything(seed, verbose=False)
        model = build(recipe, self.codec(recipe.codec), data.class_names)
        if found is None:
            steps = train(recipe, model, data, minutes)
            found = {**model.state_dict(), "steps": torch.tensor(steps)}
            write_tensors(found, path)
        steps = int(found.pop("steps"))
        model.load_state_dict(found)
        return model, steps


def build(recipe: Recipe, codec: ImageCodec, class_names: list[str] | None) -> DiffusionModule:
    """An untrained model."""
    process = recipe.process()
    module = next(module for module in MODULES if isinstance(process, module.process_class))
    return module(
        codec,
        recipe.network(),
        process,
        SIZE,
        recipe.learning_rate,
        warmup_steps=100,
        latent=recipe.latent(),
        optimizer=recipe.optimizer,
        class_names=class_names if recipe.labels else [],
    )


def train(recipe: Recipe, model: DiffusionModule, data: ShardDataModule, minutes: float) -> int:
    """Train, and return the number of steps."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        precision=PRECISION,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[recipe.average(), ProcessorTime(minutes, recipe.decay)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return trainer.global_step


def draw(model: DiffusionModule, recipe: Recipe, labels: Tensor, count: int, seed: int) -> Tensor:
    """So many samples (N, 3, H, W) uint8, whose labels are as frequent as in training."""
    label = labels.tolist() if recipe.labels else None
    how = {"sampler": SAMPLER, "steps": STEPS, **recipe.sampling}
    with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16-mixed"):
        return model.sample(count, seed=seed, batch_size=50, progress=True, label=label, **how)


def draw_labels(data: ShardDataModule, count: int) -> Tensor:
    """Labels (count,) int64 of the first images of an epoch."""
    batches = iter(data.train_dataloader())
    return torch.cat([next(batches)["label"] for _ in range(0, count, data.batch_size)])[:count]


def bits(model: DiffusionModule, images: ReferenceSet) -> dict[str, float]:
    """The bound in bits a patch, and what codes drawn by their frequencies would need."""
    found = bits_a_patch(model, images)
    if found:
        codes = torch.cat([model.codec.encode(batch["images"]) for batch in images.batches])
        _, perplexity = codebook_usage(codes, model.codec.codebook_size)
        found["frequencies"] = float(perplexity.log2().sum())
    return found


def peers(work: Path) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """What `peer_ddpm.py` left: facts, and samples (N, 3, H, W) uint8."""
    for path in sorted(work.glob("peer-*.json")):
        yield json.loads(path.read_text()), torch.from_numpy(np.load(path.with_suffix(".npy")))


def first_samples(sheet: Tensor) -> Tensor:
    """The first row (8, 3, H, W) of a grid (3, ...) of 64 samples."""
    step = sheet.shape[2] // 8
    gap = step - SIZE
    return sheet[:, gap : gap + SIZE, gap:].unfold(2, SIZE, step).permute(2, 0, 1, 3)


def draw_picture(rows: list[str], pictures: Path, seed: int, out: Path) -> None:
    """Write the first samples of those of the rows that have some."""
    sheets = {name: pictures / f"{name}-{seed}.png" for name in rows}
    shown = {
        name: first_samples(to_tensor(load_rgb(sheet.read_bytes())))
        for name, sheet in sheets.items()
        if sheet.exists()
    }
    save(table(torch.stack(list(shown.values())), list(shown)), out)


class Judge:
    """Compares samples with held-out images, whose features are kept in ~/.cache."""

    def __init__(self, held_out: Tensor) -> None:
        self.network = InceptionFeatures()
        self.features = features_fingerprint(self.network)
        pixels = hashlib.sha256(held_out.numpy().tobytes()).hexdigest()
        self.images = pixels[:16]
        path = default_cache() / f"features-{self.features[:16]}-{self.images}.safetensors"
        found = read_tensors(path)
        if found is None:
            found = {"kept": describe(held_out, self.network, "held-out").kept}
            write_tensors(found, path)
        self.real = FeatureSet.of(found["kept"])

    def score(self, made: Tensor, name: str) -> dict[str, float]:
        """Scores of images (N, 3, H, W) uint8."""
        return asdict(compare(self.real, describe(made, self.network, name)))


def main() -> None:
    """Train, score and record what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of images or of tars of images")
    parser.add_argument("work", type=Path, help="folder of shards, models and pictures")
    parser.add_argument("--record", type=Path, required=True, help="JSON file of all scores")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=15, help="processor time of training")
    parser.add_argument("--base-steps", type=int, help="in place of --minutes")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--picture", type=Path, help="PNG to write, eight samples a row")
    parser.add_argument("--held-out", type=int, default=1000, help="images to compare with")
    options = parser.parse_args()
    if options.picture:
        check_path(options.picture)
    torch.set_num_threads(1)
    keep_memory()
    pictures = options.work / "pictures"
    models = Models(options.images, options.work, options.minutes, options.base_steps)
    judge = Judge(tiles(models.images.reference(options.held_out)))
    extent = {"minutes": options.minutes}
    if options.base_steps:
        extent = {"base steps": options.base_steps}
    record = Record(
        options.record,
        {
            **extent,
            "samples": options.samples,
            "sampler": f"{SAMPLER}, {STEPS} steps",
            "held-out images": options.held_out,
            "sha256 of their pixels": judge.images,
            "features": judge.features,
            "torch": torch.__version__,
            "precision": PRECISION,
        },
    )
    for seed in options.seeds:
        for name in options.rows:
            if record.has(name, seed):
                continue
            data = models.data(ROWS[name], seed)
            model, steps = models.get(name, data, seed)
            labels = draw_labels(data, options.samples)
            made = draw(model, ROWS[name], labels, options.samples, seed)
            save(grid(made[:64]), pictures / f"{name}-{seed}.png")
            known = bits(model, models.images.reference(options.samples))
            record.add(name, seed, {"steps": steps, **judge.score(made, name), **known})
    for facts, made in peers(options.work):
        name, seed = f"{facts['name']}, {facts['steps']} steps", facts["seed"]
        if record.has(name, seed) or len(made) != options.samples:
            continue
        if abs(facts["minutes"] / models.budget() - 1) < 0.1:
            record.add(name, seed, {"steps": facts["training_steps"], **judge.score(made, name)})
            save(grid(made[:64]), pictures / f"{name}-{seed}.png")
    print(record.table(ROWS))
    if options.picture:
        draw_picture(options.rows, pictures, options.seeds[0], options.picture)


if __name__ == "__main__":
    main()
