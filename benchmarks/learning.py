"""Does it learn? FID and KID of small models after some minutes of training.

    python benchmarks/learning.py --minutes 20 --data FOLDER_OF_IMAGES_OR_SHARDS

Trains a continuous and a categorical model at 96×96 and compares, against training images: their
samples, samples of the same models untrained, codes drawn at each site from its marginal
distribution, and the codec's own reconstructions, which are the floor. Needs the extra `eval`.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.data import ShardDataModule, encode_shards, write_shards
from lit_mbldm.denoisers import UNet
from lit_mbldm.fidelity import InceptionFeatures, extract, fidelity
from lit_mbldm.pictures import grid, to_pil
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.zoo import load_pretrained

SIZE = 96
CODEC = "opq-32-8-8"


def continuous() -> DiffusionModule:
    """The continuous model."""
    return ContinuousDiffusion(
        CODEC,
        UNet(6, 6, base_channels=64, channel_multipliers=(1, 2)),
        GaussianProcess(schedule="cosine", objective="v"),
        SIZE,
        learning_rate=2e-3,
        warmup_steps=100,
    )


def categorical() -> DiffusionModule:
    """The categorical model."""
    return CategoricalDiffusion(
        CODEC,
        UNet(6, 6 * (256 + 2), base_channels=64, channel_multipliers=(1, 2)),
        CategoricalProcess(
            schedule="cosine",
            latent_weight=0.0,
            image_weight=0.0,
            cross_entropy_weight=1.0,
            likelihood=True,
            gaussian_head=True,
        ),
        SIZE,
        learning_rate=2e-3,
        warmup_steps=100,
    )


def train(model: DiffusionModule, codes: Path, minutes: float) -> int:
    """Fit for so many minutes and return the number of steps."""
    trainer = L.Trainer(
        max_epochs=-1,
        max_time={"seconds": round(60 * minutes)},
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        callbacks=[EMAWeightAveraging(decay=0.995, use_buffers=False)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, ShardDataModule(str(codes), batch_size=32))
    return trainer.global_step


def draw_marginal(codes: Tensor, count: int) -> Tensor:
    """Draw each code of an image from a random image's same site."""
    picks = torch.randint(len(codes), (count, *codes.shape[1:]))
    return codes.gather(0, picks)


def gather(module: ShardDataModule, key: str) -> Tensor:
    """All validation samples of a data module."""
    module.setup()
    return torch.cat([batch[key] for batch in module.val_dataloader()])  # type: ignore[union-attr]


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder of images or of tars of images")
    parser.add_argument("--minutes", type=float, default=20, help="training time of each model")
    parser.add_argument("--samples", type=int, default=250, help="images in each row")
    parser.add_argument("--steps", type=int, default=50, help="reverse steps of a sample")
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each row")
    options = parser.parse_args()
    L.seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, work: Path) -> None:
    """Prepare the data in a folder, then measure one row after another."""
    codec: PatchCodec = load_pretrained(CODEC)
    write_shards(options.data, work / "images", SIZE)
    encode_shards(work / "images", work / "codes", codec)
    images = gather(ShardDataModule(str(work / "images"), str(work / "images")), "images")
    codes = gather(ShardDataModule(str(work / "codes"), str(work / "codes")), "codes")
    images = images[torch.randperm(len(images))[: 2 * options.samples]]
    reference, others = images.chunk(2)
    network = InceptionFeatures()
    real = extract(network, reference.split(16))
    print(f"\n{options.samples} images a row, {options.steps} sampling steps, {options.minutes:g}"
          f" minutes of training on {len(codes)} images of {SIZE}×{SIZE}\n"
          f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__},"
          f" CUDA {torch.cuda.is_available()}\n\n"
          "| images | FID | KID × 10³ |\n|---|---|---|")  # fmt: skip

    def row(name: str, make: Callable[[], Tensor]) -> None:
        made = make()
        found = fidelity(real, extract(network, made.split(16)))
        print(f"| {name} | {found.fid:.1f} | {1000 * found.kid:.1f} |", flush=True)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            to_pil(grid(made[:36])).save(options.pictures / f"{name.replace(' ', '_')}.png")

    row("other training images", lambda: others)
    row("codec's reconstructions", lambda: codec.decode(codec.encode(others)))
    row("marginal codes", lambda: codec.decode(draw_marginal(codes, options.samples)))
    for make in (continuous, categorical):
        L.seed_everything(0)
        model = make()
        draw = partial(model.sample, options.samples, options.steps, batch_size=50)
        row(f"{make.__name__}, untrained", draw)
        steps = train(model, work / "codes", options.minutes)
        row(f"{make.__name__}, {steps} steps", draw)
        if make is categorical:
            for temperature in (0.8, 0.6):
                name = f"{make.__name__}, {steps} steps, γ = {temperature}"
                row(name, partial(draw, temperature=temperature))


if __name__ == "__main__":
    main()
