"""Grids of samples, as in the paper: at several temperatures, and on their way from noise."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL.Image import Image

from lit_mbldm.pictures import table
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.sampling import frame_steps


def temperature_grid(
    model: DiffusionModule,
    columns: int,
    temperatures: Sequence[float],
    options: SampleOptions,
    batch_size: int = 16,
    progress: bool = False,
) -> Image:
    """Samples of the same seeds at each temperature, a row each.

    Source: Scribano et al. 2023, figure 9.

    Args:
        model: a categorical model.
        columns: samples a row.
        temperatures: of each row; 0 takes the most probable codeword.
        options: how they are drawn, but for the temperature.
        batch_size: images made at once.
        progress: show progress bars.
    """
    rows = [
        torch.cat(
            list(model.batches(columns, replace(options, temperature=t), batch_size, progress))
        )
        for t in temperatures
    ]
    return table(torch.stack(rows), [f"{t:g}" if t else "argmax" for t in temperatures])


def path_grid(
    model: DiffusionModule, rows: int, options: SampleOptions, frames: int | None = None
) -> Image:
    """Samples on their way from noise to image, a row each.

    Source: Scribano et al. 2023, figure 7.

    Args:
        model: the model.
        rows: samples.
        options: how they are drawn.
        frames: columns; by default 11, or what the steps allow.

    Raises:
        InputError: a number of frames that does not fit the number of steps.
    """
    paths = model.sample_paths(rows, options, frames)
    steps = model.settle(options).steps or 0
    times = model.process.time_grid(steps)
    captions = [f"t = {times[step]}" for step in frame_steps(frames, len(times) - 1)]
    return table(paths, columns=captions)
