"""Grids of samples: at several temperatures, at several sizes, and on their way from noise."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import Tensor

from lit_mbldm.pictures import grid, stacked, table
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.sampling import SamplingModule, frame_steps


def temperature_grid(
    model: SamplingModule,
    columns: int,
    temperatures: Sequence[float],
    options: SampleOptions,
    batch_size: int = 16,
    progress: bool = False,
) -> Image:
    """Samples of the same seeds at each temperature, a row each (Scribano et al., figure 9)."""
    rows = []
    for temperature in temperatures:
        settings = replace(options, temperature=temperature)
        rows.append(torch.cat([*model.batches(columns, settings, batch_size, progress)]))
    return table(torch.stack(rows), [f"{t:g}" if t else "argmax" for t in temperatures])


def size_grid(
    model: SamplingModule,
    columns: int,
    sizes: Sequence[tuple[int, int]],
    options: SampleOptions,
    batch_size: int = 16,
    progress: bool = False,
) -> Tensor:
    """The same latents decoded at each (height, width), a row each: (3, H, W) uint8."""
    options = model.settle(options)
    latents = [*model.latents(columns, options, batch_size, progress)]
    rows = []
    for size in sizes:
        sized = replace(options, size=size)
        images = [model.decode(z0, sized, streams).cpu() for z0, streams in latents]
        rows.append(grid(torch.cat(images), columns))
    return stacked(rows)


def path_grid(
    model: SamplingModule, rows: int, options: SampleOptions, frames: int | None = None
) -> Image:
    """Samples on their way from noise to image, a row each (Scribano et al., figure 7)."""
    paths = model.sample_paths(rows, options, frames)
    options = model.settle(options)
    times = model.process.time_grid(options.steps or 0, options.sampler or "ddpm")
    captions = [f"t = {times[step]}" for step in frame_steps(frames, len(times) - 1)]
    return table(paths, columns=captions)
