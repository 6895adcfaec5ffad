"""The paper's figures of a model: its samples at several temperatures, and on their way."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image

from lit_mbldm.pictures import table
from lit_mbldm.samplers import time_grid
from lit_mbldm.training.diffusion import DiffusionModule, frame_steps


def draw_temperatures(
    model: DiffusionModule,
    columns: int,
    temperatures: Sequence[float],
    arguments: Mapping[str, Any],
) -> Image:
    """Samples of the same seeds at each temperature, a row each.

    Source: Scribano et al. 2023, figure 9.

    Args:
        model: a categorical model.
        columns: samples a row.
        temperatures: γ of each row.
        arguments: of `model.sample`, but for the temperature.
    """
    rows = [model.sample(columns, **{**arguments, "temperature": t}) for t in temperatures]
    return table(torch.stack(rows), [f"{t:g}" if t else "argmax" for t in temperatures])


def draw_paths(
    model: DiffusionModule, rows: int, frames: int, arguments: Mapping[str, Any]
) -> Image:
    """Samples on their way from noise to image, a row each.

    Source: Scribano et al. 2023, figure 7.

    Args:
        model: the model.
        rows: samples.
        frames: columns.
        arguments: of `model.sample_paths`.

    Raises:
        InputError: a number of frames that does not fit the number of steps.
    """
    times = time_grid(model.process.num_timesteps, arguments["steps"])
    captions = [f"t = {times[step]}" for step in frame_steps(frames, arguments["steps"])]
    return table(model.sample_paths(rows, frames, **arguments), columns=captions)
