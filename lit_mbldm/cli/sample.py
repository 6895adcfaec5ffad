"""The verb `sample`."""

import argparse
from typing import get_args

from lit_mbldm.cli.arguments import Verbs, natural, positive
from lit_mbldm.errors import InputError


def add_sample(verbs: Verbs) -> None:
    """`sample`: a picture of generated images."""
    parser = verbs.add_parser("sample", help="generate images from a model")
    parser.add_argument("model", help="checkpoint, run's or entry's folder, name or org/repo")
    parser.add_argument(
        "-n",
        type=positive,
        help="number of images (default: 16; 6 a row of temperatures; 4 paths)",
    )
    parser.add_argument(
        "--steps", type=positive, help="reverse steps (default: 50, or what suits it)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="whole number, or random (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=16, help="images made at once")
    parser.add_argument(
        "--sampler",
        type=sampler,
        help="ddpm (the paper's), ddim or dpm++ (default: ddpm, or what suits it)",
    )
    parser.add_argument("--eta", type=float, help="noise of ddim, from 0 to 1 (default: 0)")
    parser.add_argument(
        "--temperature",
        type=temperature,
        nargs="+",
        help="of a categorical model, 0 or argmax for its most probable codewords (default: 1, or"
        " what suits it); several make a row of images each",
    )
    parser.add_argument(
        "--path",
        type=positive,
        nargs="?",
        const=0,
        metavar="FRAMES",
        help="show each image's way from noise, a row of frames (default: up to 11)",
    )
    parser.add_argument(
        "--refiner",
        help="checkpoint, folder or name of a refiner; `none` leaves out the model's own",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument(
        "--out",
        default="grid.png",
        help="PNG to write, or a folder (DIR/) for one file an image (default: grid.png)",
    )
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    from lit_mbldm.cli.write_samples import run_sample

    run_sample(options)


def sampler(text: str) -> str:
    """Name of a sampler."""
    from lit_mbldm.processes.samplers import Sampler

    if text not in get_args(Sampler):
        names = ", ".join(get_args(Sampler))
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {names})")
    return text


def temperature(text: str) -> float:
    """A number from 0, or argmax."""
    from lit_mbldm.processes.samplers import read_temperature

    try:
        return read_temperature(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(
            f"expected numbers from 0, or argmax, got {text!r} (the model's name comes first)"
        ) from error


def seed(text: str) -> int | None:
    """A whole number from 0; None for a random one."""
    return None if text == "random" else natural(text)
