"""The verb `train`: from a folder of images to a model, by the ordinary commands one by one."""

import argparse
import shlex
from pathlib import Path

from lit_mbldm.cli.arguments import IMAGES, Verbs, add_verb, arg, positive
from lit_mbldm.cli.config_files import own_configs
from lit_mbldm.cli.data import fit_words


def add_train(verbs: Verbs) -> None:
    """`train`: a model of one's own images."""
    sizes = "height and width of the images to learn (default: 64; 128 on a GPU)"
    add_verb(
        verbs,
        train,
        IMAGES,
        arg("--size", sizes, type=int, choices=own_configs()),
        arg("--name", "name of its folders in data/ and runs/ (default: of IMAGES and the size)"),
        arg("--steps", "training steps (default: the config's)", type=positive),
    )


def train(options: argparse.Namespace) -> None:
    """Make a model of a folder of images, in one command."""
    import torch

    from lit_mbldm.data.shards.manifest import Manifest

    def run(*command: str) -> None:
        print(f"\n$ lit-mbldm {shlex.join(command)}", flush=True)
        options.dispatch([*command])

    size = options.size or (128 if torch.cuda.is_available() else 64)
    name = options.name or f"{Path(options.images).resolve().name.removesuffix('.zip')}_{size}"
    shards = f"data/{name}"
    run("shards", options.images, shards, "--size", str(size), "--val", "0.05")
    fit = fit_words(shards, size, Manifest.read(Path(shards)).count)
    fit += ["--trainer.logger.init_args.name", name]
    if options.steps:
        fit += ["--trainer.max_steps", str(options.steps)]
    if any(Path("runs", name).glob("version_*/checkpoints/last*.ckpt")):
        fit += ["--ckpt_path", "last"]
    run(*fit)
