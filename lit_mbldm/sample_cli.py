"""The verb `sample`: a grid of images, a row for each temperature, or their ways from noise."""

import argparse
from dataclasses import fields

from PIL.Image import Image
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.pictures import check_path, grid, save
from lit_mbldm.training import SampleOptions
from lit_mbldm.training.diffusion import DiffusionModule, frame_steps
from lit_mbldm.training.figures import draw_paths, draw_temperatures
from lit_mbldm.zoo import load_pretrained

_PATHS = 4


def run_sample(options: argparse.Namespace) -> None:
    """Draw what the options ask for, and write it as one picture.

    Raises:
        InputError: options that do not fit each other or the model, before anything is drawn.
    """
    check_path(options.out)
    if options.path:
        _check_path_options(options)
    model = load_pretrained(options.model, device=options.device)
    save(_picture(model, options), options.out)
    print(options.out)


def _check_path_options(options: argparse.Namespace) -> None:
    if options.steps:
        frame_steps(options.path, options.steps)
    if options.refiner:
        raise InputError("--path shows z_t as the codec decodes it: leave --refiner out.")
    if len(options.temperature or []) > 1:
        raise InputError("--path takes one --temperature: make a picture for each.")
    rows = options.n or _PATHS
    if rows > options.batch_size:
        raise InputError(f"--path draws its images at once: {rows} need --batch-size {rows}.")


def _picture(model: DiffusionModule, options: argparse.Namespace) -> Tensor | Image:
    temperatures = options.temperature or [None]
    given = {field.name: getattr(options, field.name) for field in fields(SampleOptions)}
    suited = SampleOptions.suiting(model, **{**given, "temperature": temperatures[0]})
    arguments = suited.arguments(model)
    if options.path:
        return draw_paths(model, options.n or _PATHS, options.path, arguments)
    arguments |= {"batch_size": options.batch_size, "progress": True}
    if len(temperatures) > 1:
        return draw_temperatures(model, options.n or 6, temperatures, arguments)
    return grid(model.sample(options.n or 16, **arguments))
