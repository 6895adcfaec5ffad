"""Loops over reverse steps, and their time grids."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes.forward import Denoiser, Prediction
from lit_mbldm.randomness import SampleStreams


class Process(Protocol):
    """What a sampler asks of a process."""

    num_timesteps: int

    def prior(self, shape: Sequence[int], generator: SampleStreams) -> Tensor:
        """Draw z_T."""

    def predict(
        self, denoiser: Denoiser, z_t: Tensor, t: int, self_condition: Tensor | None
    ) -> Prediction:
        """Ask the network for z_0."""

    step: Callable[..., Tensor]


def time_grid(num_timesteps: int, steps: int) -> list[int]:
    """Times T = t_0 > t_1 > … > t_steps = 0, evenly spaced.

    Raises:
        InputError: steps outside [1, T].
    """
    if not 1 <= steps <= num_timesteps:
        raise InputError(
            f"The number of sampling steps must lie in [1, {num_timesteps}], got {steps}."
        )
    return [round(num_timesteps * (steps - i) / steps) for i in range(steps + 1)]


def ancestral(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    on_step: Callable[[], object] | None = None,
    **options: Any,
) -> Tensor:
    """DDPM's ancestral sampling with any number of steps (Ho et al. 2020, algorithm 2).

    Args:
        process: the process.
        denoiser: the network.
        shape: of one latent, (S, h, w).
        steps: reverse steps, at most T.
        generator: a stream for each of the B samples.
        on_step: called after each step, for progress bars.
        options: passed to `process.step`.

    Returns:
        z_0, (B, S, h, w).
    """
    times = time_grid(process.num_timesteps, steps)
    z = process.prior(shape, generator)
    estimate = None
    for t, s in pairwise(times):
        prediction = process.predict(denoiser, z, t, estimate)
        z = process.step(z, prediction, t, s, generator, **options)
        estimate = prediction.z0
        if on_step:
            on_step()
    return z
