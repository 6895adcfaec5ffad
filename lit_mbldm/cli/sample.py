"""The verb `sample`: a grid, files, rows of temperatures, or ways from noise."""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from lit_mbldm.cli.arguments import DEVICE, MODEL, Verbs, add_verb, arg, natural, positive, size
from lit_mbldm.errors import InputError


def add_sample(verbs: Verbs) -> None:
    """`sample`: generated images."""
    count = "images (default: 16; 6 a temperature or 4 a size of several; 4 with --path)"
    sampler = "ddpm (the paper's), ddim or dpm++ (default: the model's own, or ddpm)"
    rows = "of codes or bits, from 0, or argmax; several make rows (default: its own, or 1)"
    label = "class by name or number; several take turns (default: all in turn)"
    interval = "t/T between which there is guidance (default: 0 1)"
    sizes = "HEIGHTxWIDTH or side, any; several make rows of one latent each (default: its own)"
    path = "show each image's way from noise, a row of frames (default: up to 11)"
    nearest = "shards of training images: pair each sample with the nearest, and count copies"
    out = "PNG to write, or a folder (DIR/) for one file an image"
    add_verb(
        verbs,
        sample,
        MODEL,
        arg("-n", count, type=positive),
        arg("--steps", "reverse steps (default: the model's own, or 50)", type=positive),
        arg("--seed", "whole number, or random", type=seed, default=0),
        arg("--batch-size", "images made at once", type=positive, default=16),
        arg("--sampler", sampler),
        arg("--eta", "noise of ddim, from 0 to 1 (default: 0)", type=float),
        arg("--temperature", rows, nargs="+", default=[]),
        arg("--label", label, nargs="+"),
        arg("--guidance", "scale, from 0 (default: the model's own, or 1: none)", type=float),
        arg("--guidance-interval", interval, type=float, nargs=2, metavar=("LOW", "HIGH")),
        arg("--guide", "earlier or smaller model to guide away from: checkpoint, folder or name"),
        arg("--size", sizes, type=size, nargs="+", default=[], metavar="HxW"),
        arg("--path", path, type=positive, nargs="?", const=0, metavar="FRAMES"),
        arg("--nearest", nearest, metavar="SHARDS"),
        arg("--refiner", "checkpoint, folder or name; `none` leaves out the model's own"),
        DEVICE,
        arg("--out", out, default="grid.png"),
    )


def seed(text: str) -> int | None:
    """A whole number from 0; None for a random one."""
    return None if text == "random" else natural(text)


def sample(arguments: argparse.Namespace) -> None:
    """Generate images from a model."""
    import torch

    from lit_mbldm.pictures import check_path, grid, save
    from lit_mbldm.processes.samplers import read_temperature
    from lit_mbldm.storage.atomic import check_writable
    from lit_mbldm.training.callbacks.nearest import check_with_shards
    from lit_mbldm.training.callbacks.pictures import (
        class_columns,
        path_grid,
        size_grid,
        temperature_grid,
    )
    from lit_mbldm.training.callbacks.samples import diffusion_model
    from lit_mbldm.training.options import SampleOptions, fresh_seed
    from lit_mbldm.zoo import load_pretrained

    out, batch_size = Path(arguments.out), arguments.batch_size
    to_folder = arguments.out.endswith(os.sep) or out.is_dir()
    path, rows = arguments.path is not None, len(arguments.temperature) > 1
    sizes = arguments.size
    if to_folder + path + rows + (len(sizes) > 1) + bool(arguments.nearest) > 1:
        raise InputError(
            "Choose one of a folder as --out, --path, --nearest, several --temperature and several"
            " --size: each makes another kind of output."
        )
    if path and arguments.refiner:
        raise InputError("--path shows z_t as the codec decodes it: leave --refiner out.")
    temperatures = [read_temperature(text) for text in arguments.temperature]
    (check_writable if to_folder else check_path)(out)
    if to_folder and any(out.glob("*.png")):
        raise InputError(f"{out} already holds pictures. Name another folder as --out.")
    given = {field.name: getattr(arguments, field.name) for field in fields(SampleOptions)}
    given["temperature"] = temperatures[0] if temperatures else None
    given["size"] = sizes[0] if sizes else None
    given["seed"] = fresh_seed() if arguments.seed is None else arguments.seed
    model = diffusion_model(load_pretrained(arguments.model, device=arguments.device))
    options = model.settle(SampleOptions(**given))
    if path:
        save(path_grid(model, arguments.n or 4, options, arguments.path or None), out)
    elif rows:
        save(
            temperature_grid(model, arguments.n or 6, temperatures, options, batch_size, True), out
        )
    elif len(sizes) > 1:
        save(size_grid(model, arguments.n or 4, sizes, options, batch_size, True), out)
    else:
        batches = model.batches(arguments.n or 16, options, batch_size, progress=True)
        if arguments.nearest:
            check = check_with_shards(model, torch.cat(list(batches)), arguments.nearest)
            save(check.picture(len(check.samples)), out)
            print(f"copies: {check.told()}")
        elif to_folder:
            for number, image in enumerate(image for batch in batches for image in batch):
                save(image, out / f"{number:06d}.png")
        else:
            save(grid(torch.cat(list(batches)), class_columns(model, options)), out)
    print(arguments.out)
