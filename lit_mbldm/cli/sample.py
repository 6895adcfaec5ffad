"""The verb `sample`: a grid, files, rows of temperatures, or ways from noise."""

import argparse
import os
import shlex
from dataclasses import fields
from pathlib import Path

from lit_mbldm.cli.arguments import DEVICE, MODEL, Verbs, add_verb, arg, natural, positive, size
from lit_mbldm.errors import InputError

_INTERVAL = "t/T between which there is guidance (default: 0 1)"


def seed(text: str) -> int:
    """A whole number from 0, or a random one."""
    if text != "random":
        return natural(text)
    from lit_mbldm.training.options import fresh_seed

    return fresh_seed()


def output(name: str) -> tuple[Path, bool]:
    """The PNG or the folder (DIR/) to write, and whether it is a folder.

    Raises InputError where it cannot be written, or the folder holds pictures.
    """
    from lit_mbldm.pictures import check_path
    from lit_mbldm.storage.atomic import check_writable

    out = Path(name)
    to_folder = name.endswith(os.sep) or out.is_dir()
    (check_writable if to_folder else check_path)(out)
    if to_folder and any(out.glob("*.png")):
        raise InputError(f"{out} already holds pictures. Name another folder as --out.")
    return out, to_folder


_SAMPLER = (
    "ddpm (the paper's), ddim, dpm++ or, of a model tuned for few steps, consistency (default: the"
    " model's own, or ddpm)"
)
# how samples are drawn, by `edit` too
SETTINGS = (
    arg("--steps", "reverse steps (default: the model's own, or 50)", type=positive),
    arg("--seed", "whole number, or random", type=seed, default=0),
    arg("--batch-size", "images made at once", type=positive, default=16),
    arg("--sampler", _SAMPLER),
    arg("--eta", "noise of ddim, from 0 to 1 (default: 0)", type=float),
    arg("--guidance", "scale, from 0 (default: the model's own, or 1: none)", type=float),
    arg("--guidance-interval", _INTERVAL, type=float, nargs=2, metavar=("LOW", "HIGH")),
    arg("--guide", "earlier or smaller model to guide away from: checkpoint, folder or name"),
    arg("--refiner", "checkpoint, folder or name; `none` leaves out the model's own"),
    DEVICE,
)


def add_sample(verbs: Verbs) -> None:
    """`sample`: generated images."""
    count = "images (default: 16; 6 a temperature or 4 a size of several; 4 with --path)"
    rows = "of codes or bits, from 0, or argmax; several make rows (default: its own, or 1)"
    label = "class by name or number; several take turns (default: all in turn)"
    path = "show each image's way from noise, a row of frames (default: up to 11)"
    nearest = "shards of training images: pair each sample with the nearest, and count copies"
    out = "PNG to write, or a folder (DIR/) for one file an image"
    canvas = "HEIGHTxWIDTH to draw at, where the model's denoiser allows it (default: as learned)"
    sizes = "HEIGHTxWIDTH or side, any; several make rows of one latent each (default: its own)"
    like = "make the picture of a file that `--out DIR/` wrote again, bit for bit"
    parser = add_verb(
        verbs,
        sample,
        arg("-n", count, type=positive),
        arg("--temperature", rows, nargs="+", default=[]),
        arg("--label", label, nargs="+"),
        arg("--canvas", canvas, type=size, metavar="HxW"),
        arg("--size", sizes, type=size, nargs="+", default=[], metavar="HxW"),
        *SETTINGS,
        arg("--like", like, type=Path, metavar="PNG"),
        arg("--path", path, type=positive, nargs="?", const=0, metavar="FRAMES"),
        arg("--nearest", nearest, metavar="SHARDS"),
        arg("--out", out, default="grid.png"),
    )
    parser.add_argument(MODEL[0], **MODEL[1]).required = False  # with --like


def sample(arguments: argparse.Namespace) -> None:
    """Generate images from a model."""
    import torch

    from lit_mbldm.codecs.sizes import check_size
    from lit_mbldm.pictures import grid, save
    from lit_mbldm.processes.samplers import read_temperature
    from lit_mbldm.training.callbacks.nearest import check_with_shards
    from lit_mbldm.training.callbacks.pictures import class_columns
    from lit_mbldm.training.callbacks.samples import diffusion_model
    from lit_mbldm.training.grids import path_grid, size_grid, temperature_grid
    from lit_mbldm.training.options import SampleOptions
    from lit_mbldm.training.recipe import Recipe
    from lit_mbldm.zoo import load_pretrained

    out, to_folder = output(arguments.out)
    _check_kind(arguments, to_folder)
    temperatures = [read_temperature(text) for text in arguments.temperature]
    sizes, batch_size = arguments.size, arguments.batch_size
    for wanted in sizes:
        check_size(wanted)
    if arguments.like:
        save(Recipe.read(arguments.like).make(arguments.device, arguments.model), out)
        print(arguments.out)
        return
    given = {field.name: getattr(arguments, field.name) for field in fields(SampleOptions)}
    given["temperature"] = temperatures[0] if temperatures else None
    given["size"] = sizes[0] if sizes else None
    model = diffusion_model(load_pretrained(arguments.model, device=arguments.device))
    told, count = SampleOptions(**given), arguments.n
    options = model.settle(told)
    if arguments.path is not None:
        save(path_grid(model, count or 4, options, arguments.path or None), out)
    elif len(temperatures) > 1:
        save(temperature_grid(model, count or 6, temperatures, options, batch_size, True), out)
    elif len(sizes) > 1:
        save(size_grid(model, count or 4, sizes, options, batch_size, True), out)
    else:
        batches = model.batches(count or 16, options, batch_size, progress=True)
        if arguments.nearest:
            check = check_with_shards(model, torch.cat(list(batches)), arguments.nearest)
            save(check.picture(len(check.samples)), out)
            print(f"copies: {check.told()}")
        elif to_folder:
            recipe = Recipe.of(model, arguments.model, told)
            for number, image in enumerate(image for batch in batches for image in batch):
                save(image, out / f"{number:06d}.png", recipe.numbered(model, number).text())
        else:
            save(grid(torch.cat(list(batches)), class_columns(model, options)), out)
    print(arguments.out)
    print(f"Play with it in the browser: lit-mbldm demo {shlex.quote(arguments.model)}")


def _check_kind(arguments: argparse.Namespace, to_folder: bool) -> None:
    """Raise InputError where options are for outputs of different kinds."""
    path, rows = arguments.path is not None, len(arguments.temperature) > 1
    sizes = arguments.size
    if to_folder + path + rows + (len(sizes) > 1) + bool(arguments.nearest) > 1:
        raise InputError(
            "Choose one of a folder as --out, --path, --nearest, several --temperature and several"
            " --size: each makes another kind of output."
        )
    if path and arguments.refiner:
        raise InputError("--path shows z_t as the codec decodes it: leave --refiner out.")
    if not arguments.like:
        if arguments.model is None:
            raise InputError("Expected a MODEL to sample, or --like with a picture that one made.")
        return
    kept = {"model", "like", "device", "out", "batch_size", "run", "dispatch"}
    others = {name for name, value in vars(arguments).items() if value and name not in kept}
    if others or to_folder:
        raise InputError(
            "--like makes one picture as it was made: leave all but MODEL, --device and a file as"
            f" --out away, got also {', '.join(sorted(others)) or 'a folder'}."
        )
