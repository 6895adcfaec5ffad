"""The verb `train`: from a folder of images to a model, by the ordinary commands one by one."""

import argparse
import shlex
from pathlib import Path

from lit_mbldm.cli.arguments import Verbs, positive
from lit_mbldm.cli.config_files import own_configs

_BATCH = 32
_LAST = "version_*/checkpoints/last*.ckpt"


def add_train(verbs: Verbs) -> None:
    """`train`: a model of one's own images."""
    parser = verbs.add_parser("train", help="make a model of a folder of images, in one command")
    parser.add_argument("images", metavar="IMAGES", help="folder of images, zip or tar shards")
    parser.add_argument(
        "--size",
        type=int,
        choices=own_configs(),
        help="height and width of the images to learn (default: 64; 128 on a GPU)",
    )
    parser.add_argument(
        "--name", help="name of its folders in data/ and runs/ (default: of IMAGES and the size)"
    )
    parser.add_argument("--steps", type=positive, help="training steps (default: the config's)")
    parser.set_defaults(run=lambda options: _train(options, verbs))


def _train(options: argparse.Namespace, verbs: Verbs) -> None:
    import torch

    from lit_mbldm.cli.trainer import run_trainer
    from lit_mbldm.data.shards.manifest import Manifest
    from lit_mbldm.entries.entry_config import CONFIG

    size = options.size or (128 if torch.cuda.is_available() else 64)
    name = options.name or f"{Path(options.images).resolve().name.removesuffix('.zip')}_{size}"
    shards, codec, codes = (f"data/{name}{kind}" for kind in ("", "_codec", "_codes"))
    for command in (
        ["shards", options.images, shards, "--size", str(size), "--val", "0.05"],
        *([] if Path(codec, CONFIG).exists() else [["codec", "fit", "JPQ-48", shards, codec]]),
        ["encode", shards, codes, "--codec", codec],
    ):
        _show(command)
        stage = verbs.choices[command[0]].parse_args(command[1:])
        stage.run(stage)
    fit = ["fit", "--config", own_configs()[size], "--data.train", codes, "--model.codec", codec]
    fit += ["--score.reference", shards, "--trainer.logger.init_args.name", name]
    if (
        count := Manifest.read(Path(codes)).count
    ) < 2 * _BATCH:  # fewer than most configs' batches take
        fit += ["--data.batch_size", str(min(count, _BATCH))]
    fit += ["--trainer.max_steps", str(options.steps)] if options.steps else []
    fit += ["--ckpt_path", "last"] if any(Path("runs", name).glob(_LAST)) else []
    _show(fit)
    run_trainer(fit)


def _show(command: list[str]) -> None:
    print(f"\n$ lit-mbldm {shlex.join(command)}", flush=True)
