"""The verb `sample`: a grid or files, a row for each temperature, or their ways from noise."""

import argparse
import os
from dataclasses import fields
from pathlib import Path

import torch

from lit_mbldm.errors import InputError
from lit_mbldm.pictures import check_path, grid, save
from lit_mbldm.storage.atomic import check_writable
from lit_mbldm.training import SampleOptions
from lit_mbldm.training.callbacks.grids import path_grid, temperature_grid
from lit_mbldm.training.callbacks.samples import diffusion_model
from lit_mbldm.training.diffusion import DiffusionModule, frame_steps
from lit_mbldm.training.options import fresh_seed
from lit_mbldm.zoo import load_pretrained

_PATHS = 4


def run_sample(arguments: argparse.Namespace) -> None:
    """Draw what the arguments ask for, and write it as one picture, or as a file an image.

    Raises:
        InputError: options that do not fit each other or the model, before anything is drawn.
    """
    out = Path(arguments.out)
    to_folder = arguments.out.endswith(os.sep) or out.is_dir()
    if to_folder:
        _check_folder_options(arguments)
        check_writable(out)
    else:
        check_path(out)
    if arguments.path is not None:
        _check_path_options(arguments)
    options = _options(arguments)
    model = diffusion_model(load_pretrained(arguments.model, device=arguments.device))
    options = model.settle(options)
    if to_folder:
        _write_images(model, options, arguments, out)
    else:
        _write_picture(model, options, arguments, out)
    print(arguments.out)


def _options(arguments: argparse.Namespace) -> SampleOptions:
    given = {field.name: getattr(arguments, field.name) for field in fields(SampleOptions)}
    given["temperature"] = (arguments.temperature or [None])[0]
    if arguments.seed is None:
        given["seed"] = fresh_seed()
    return SampleOptions(**given)


def _check_folder_options(arguments: argparse.Namespace) -> None:
    if arguments.path is not None or len(arguments.temperature or []) > 1:
        raise InputError(
            "A folder takes one file an image, but --path and several --temperature make one"
            " picture: expected --out with a name such as grid.png."
        )


def _check_path_options(arguments: argparse.Namespace) -> None:
    if arguments.steps:
        frame_steps(arguments.path or None, arguments.steps)
    if arguments.refiner:
        raise InputError("--path shows z_t as the codec decodes it: leave --refiner out.")
    if len(arguments.temperature or []) > 1:
        raise InputError("--path takes one --temperature: make a picture for each.")
    rows = arguments.n or _PATHS
    if rows > arguments.batch_size:
        raise InputError(f"--path draws its images at once: {rows} need --batch-size {rows}.")


def _write_images(
    model: DiffusionModule, options: SampleOptions, arguments: argparse.Namespace, out: Path
) -> None:
    if any(out.glob("*.png")):
        raise InputError(f"{out} already holds pictures. Name another folder as --out.")
    number = 0
    for images in model.batches(arguments.n or 16, options, arguments.batch_size, progress=True):
        for image in images:
            save(image, out / f"{number:06d}.png")
            number += 1


def _write_picture(
    model: DiffusionModule, options: SampleOptions, arguments: argparse.Namespace, out: Path
) -> None:
    temperatures, size = arguments.temperature or [], arguments.batch_size
    if arguments.path is not None:
        save(path_grid(model, arguments.n or _PATHS, options, arguments.path or None), out)
    elif len(temperatures) > 1:
        rows = temperature_grid(model, arguments.n or 6, temperatures, options, size, True)
        save(rows, out)
    else:
        batches = list(model.batches(arguments.n or 16, options, size, progress=True))
        save(grid(torch.cat(batches)), out)
