"""Does it learn? Small models after some minutes of training, their scores, few steps and a peer.

    python benchmarks/learning.py train NAME WORK --data FOLDER_OF_IMAGES_OR_SHARDS --minutes 30
    python benchmarks/learning.py methods WORK
    python benchmarks/learning.py samplers WORK NAME
    python benchmarks/learning.py refine WORK

`train` fits one of the models below on images of 96×96, for minutes of processor time on one
thread, so that several can train at once, and leaves a checkpoint in the folder WORK. `methods`
compares their samples, and those of `peer_ddpm.py`, with training images; `samplers` compares the
ways to sample from one; `refine` measures the refiner on the last shard, which it was not trained
on. Sampling is in bfloat16, as training is. Needs the extra `eval`.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from processor_time import ProcessorTime
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_mbldm.data import ShardDataModule, encode_shards, write_shards
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.entries.load import load_codec
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.metrics.fidelity import fidelity
from lit_mbldm.metrics.inception import InceptionFeatures
from lit_mbldm.pictures import grid, table, to_pil
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion, Refiner
from lit_mbldm.training.module import CodecModule
from lit_mbldm.zoo import load_pretrained

SIZE = 96
CODEC = "opq-32-8-8"
TEMPERATURES = [
    *(("categorical", gamma) for gamma in (0.1, 1.0, 2.2)),
    *(("categorical_ce", gamma) for gamma in (0.6, 1.0)),
]
GRID = (1000, 250, 100, 50, 25, 16, 10)


def unet() -> UNet:
    """A network of 2.5 M parameters."""
    return UNet(base_channels=64, channel_multipliers=(1, 2))


def continuous() -> CodecModule:
    """Velocity and cosine schedule, which learn faster than the paper's."""
    process = GaussianProcess(schedule="cosine", objective="v")
    return ContinuousDiffusion(CODEC, unet(), process, SIZE, 2e-3, warmup_steps=100)


def categorical() -> CodecModule:
    """The paper's two terms and schedule."""
    process = CategoricalProcess()
    return CategoricalDiffusion(CODEC, unet(), process, SIZE, 2e-3, warmup_steps=100)


def categorical_ce() -> CodecModule:
    """The paper's two terms and cross-entropy, with every option."""
    process = CategoricalProcess(
        schedule="cosine", cross_entropy_weight=1.0, likelihood=True, gaussian_head=True
    )
    return CategoricalDiffusion(CODEC, unet(), process, SIZE, 2e-3, warmup_steps=100)


def refiner() -> CodecModule:
    """The refiner."""
    return Refiner(CODEC, RefinerUNet(), learning_rate=2e-3, warmup_steps=50)


MODELS = {make.__name__: make for make in (continuous, categorical, categorical_ce, refiner)}


def train(options: argparse.Namespace) -> None:
    """Prepare the shards if they are not there, fit a model and save it."""
    work = options.work
    if not (work / "images").exists():
        write_shards(options.data, work / "images", SIZE)
        encode_shards(work / "images", work / "codes", load_codec(CODEC))
    torch.set_num_threads(1)
    L.seed_everything(0)
    if options.name == "refiner":
        shards = sorted(str(path) for path in (work / "images").glob("*.tar"))
        if len(shards) < 2:
            raise SystemExit("The refiner holds out the last shard: more than 1000 images, please.")
        data = ShardDataModule(shards[:-1], batch_size=16)
    else:
        data = ShardDataModule(str(work / "codes"), batch_size=32)
    trainer = L.Trainer(
        max_epochs=-1,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        callbacks=[EMAWeightAveraging(decay=0.995, use_buffers=False),
                   ProcessorTime(options.minutes)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(MODELS[options.name](), data)
    trainer.save_checkpoint(work / f"{options.name}.ckpt")
    facts = {"steps": trainer.global_step, "minutes": options.minutes}
    (work / f"{options.name}.json").write_text(json.dumps(facts))


class Scorer:
    """Scores images against training images and prints rows."""

    def __init__(self, work: Path, samples: int) -> None:
        self.work, self.samples = work, samples
        self.network = InceptionFeatures()
        module = ShardDataModule(str(work / "codes"), str(work / "images"))
        module.setup()
        images = torch.cat([batch["images"] for batch in module.val_dataloader()])
        picks = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        self.reference, self.others = images[picks[: 2 * samples]].chunk(2)
        self.real = self._reference_features()
        (work / "pictures").mkdir(exist_ok=True)
        self.shown: dict[str, Tensor] = {}
        print(f"\n{samples} images a row, against as many training images of {SIZE}×{SIZE}")
        print(f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}\n")

    def _reference_features(self) -> Tensor:
        path = self.work / f"reference-{self.samples}.safetensors"
        if not path.exists():
            save_file({"features": self.features(self.reference)}, path)
        return load_file(path)["features"]

    def features(self, images: Tensor) -> Tensor:
        """Features (N, F) of images (N, 3, H, W) uint8."""
        return torch.cat([self.network(batch) for batch in images.split(16)])

    def row(self, name: str, made: Tensor, seconds: float | None = None, caption: str = "") -> None:
        """Print a row of the table, keep a picture of the images, and with a caption some."""
        found = fidelity(self.real, self.features(made))
        cost = "" if seconds is None else f"{seconds:.3f}"
        print(f"| {name} | {found.fid:.1f} | {1000 * found.kid:.0f} | {found.precision:.2f} |"
              f" {found.recall:.2f} | {cost} |", flush=True)  # fmt: skip
        to_pil(grid(made[:36])).save(self.work / "pictures" / f"{name.replace(' ', '_')}.png")
        if caption:
            self.shown[caption] = made[:8]

    def head(self) -> None:
        """Print the table's head."""
        print("| images | FID | KID × 10³ | precision | recall | seconds an image |\n"
              "|---|---|---|---|---|---|", flush=True)  # fmt: skip

    def timed(self, draw: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """Images and their processor time each."""
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            made = draw()
        return made, (time.process_time() - start) / len(made)


def draw_marginal(codes: Tensor, count: int) -> Tensor:
    """Draw each code of an image from a random image's same position."""
    return codes.gather(0, torch.randint(len(codes), (count, *codes.shape[1:])))


def methods(options: argparse.Namespace) -> None:
    """Every method at one number of steps."""
    torch.set_num_threads(1)
    L.seed_everything(0)
    scorer, codec, work = Scorer(options.work, options.samples), load_codec(CODEC), options.work
    scorer.head()
    scorer.row("other training images", scorer.others)
    codes = codec.encode(scorer.others)
    scorer.row("codec's reconstructions", codec.decode(codes))
    scorer.row("marginal codes", codec.decode(draw_marginal(codes, options.samples)))
    for name, temperature in [("continuous", None), *TEMPERATURES]:
        if not (work / f"{name}.ckpt").exists():
            continue
        model = load_pretrained(work / f"{name}.ckpt")
        steps = json.loads((work / f"{name}.json").read_text())["steps"]
        caption = name if temperature is None else f"{name}, {temperature}"
        label = f"{name}, {steps} training steps"
        arguments = {} if temperature is None else {"temperature": temperature}
        label += "" if temperature is None else f", temperature {temperature}"
        made, seconds = scorer.timed(
            lambda model=model, arguments=arguments: model.sample(
                options.samples, options.steps, batch_size=50, **arguments
            )
        )
        scorer.row(label, made, seconds, caption)
        if name == "continuous" and (work / "refiner.ckpt").exists():
            refine = load_pretrained(work / "refiner.ckpt").refine
            made = torch.cat([refine(part) for part in made.split(50)])
            scorer.row(f"{label}, + refiner", made, caption="+ refiner")
    for facts, made in peers(work):
        name = f"{facts['name']}, {facts['training_steps']} training steps, {facts['steps']} steps"
        scorer.row(name, made[: options.samples], facts["seconds"], "peer, in pixels")
    rows = torch.stack(list(scorer.shown.values()))
    table(rows, list(scorer.shown)).save(work / "methods.png")


def peers(work: Path) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """What `peer_ddpm.py` left: facts, and samples (N, 3, H, W) uint8."""
    for path in sorted(work.glob("peer-*.json")):
        yield json.loads(path.read_text()), torch.from_numpy(np.load(path.with_suffix(".npy")))


def samplers(options: argparse.Namespace) -> None:
    """Every sampler from 1000 to 10 steps."""
    torch.set_num_threads(1)
    model = load_pretrained(options.work / f"{options.name}.ckpt")
    arguments = {} if options.temperature is None else {"temperature": options.temperature}
    scorer = Scorer(options.work, options.samples)
    scorer.head()
    for sampler in options.samplers:
        for steps in options.steps:
            if sampler != "ddpm" and steps > 100:
                continue  # they are meant for few
            made, seconds = scorer.timed(
                lambda steps=steps, sampler=sampler: model.sample(
                    options.samples, steps, batch_size=50, sampler=sampler, **arguments
                )
            )
            scorer.row(f"{options.name}, {sampler}, {steps} steps", made, seconds)


def refine(options: argparse.Namespace) -> None:
    """PSNR and SSIM before and after the refiner, by the noise on the codes."""
    torch.set_num_threads(1)
    model: Refiner = load_pretrained(options.work / "refiner.ckpt")
    held_out = str(max((options.work / "images").glob("*.tar")))
    module = ShardDataModule(held_out, held_out, batch_size=options.samples)
    module.setup()
    images = next(iter(module.val_dataloader()))["images"]
    codes = model.codec.encode(images)
    print(f"\n{len(images)} images of {SIZE}×{SIZE} that the refiner was not trained on\n\n"
          "| noise, index levels | PSNR before | after | SSIM before | after |\n"
          "|---|---|---|---|---|")  # fmt: skip
    for sigma in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
        streams = SampleStreams([(0, i) for i in range(len(images))])
        noisy = model.corrupt(codes, torch.full((len(images),), sigma), streams)
        before = model.codec.decode(noisy)
        after = torch.cat([model.refine(part) for part in before.split(50)])
        figures = [measure(x, images).mean() for measure in (psnr, ssim) for x in (before, after)]
        print(f"| {sigma:g} | " + " | ".join(f"{x:.3f}" for x in figures) + " |", flush=True)


def main() -> None:
    """Run a part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(required=True)
    part = verbs.add_parser("train")
    part.add_argument("name", choices=MODELS)
    part.add_argument("work", type=Path)
    part.add_argument("--data", help="folder of images or of tars of images")
    part.add_argument("--minutes", type=float, default=30, help="processor time of training")
    part.set_defaults(run=train)
    part = verbs.add_parser("methods")
    part.add_argument("work", type=Path)
    part.add_argument("--samples", type=int, default=250, help="images in each row")
    part.add_argument("--steps", type=int, default=50, help="reverse steps of a sample")
    part.set_defaults(run=methods)
    part = verbs.add_parser("samplers")
    part.add_argument("work", type=Path)
    part.add_argument("name", choices=[name for name in MODELS if name != "refiner"])
    part.add_argument("--samples", type=int, default=100, help="images in each row")
    part.add_argument("--temperature", type=float, help="of a categorical model")
    part.add_argument("--steps", type=int, nargs="+", default=GRID)
    part.add_argument("--samplers", nargs="+", default=["ddpm", "ddim", "dpm++"])
    part.set_defaults(run=samplers)
    part = verbs.add_parser("refine")
    part.add_argument("work", type=Path)
    part.add_argument("--samples", type=int, default=250)
    part.set_defaults(run=refine)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
