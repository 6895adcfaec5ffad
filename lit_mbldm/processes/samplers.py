"""Loops over reverse steps, and their time grids."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes.forward import Denoiser, Prediction
from lit_mbldm.processes.randomness import SampleStreams

Sampler = Literal["ddpm", "ddim", "dpm++"]
# (z_t, prediction at t, t, s) -> z_s
Update = Callable[[Tensor, Prediction, int, int], Tensor]
# called after each step with (s, z_s, prediction at t)
OnStep = Callable[[int, Tensor, Prediction], object]


class Process(Protocol):
    """What a sampler asks of a process."""

    num_timesteps: int

    def prior(self, shape: Sequence[int], generator: SampleStreams) -> Tensor:
        """Draw z_T."""

    def predict(
        self, denoiser: Denoiser, z_t: Tensor, t: int, self_condition: Tensor | None
    ) -> Prediction:
        """Ask the network for z_0."""

    @property
    def step(self) -> Callable[..., Tensor]:
        """(z_t, prediction, t, s, generator, options) -> z_s."""

    @property
    def finish(self) -> Callable[..., Tensor]:
        """(prediction, generator, options) -> z_0."""

    @property
    def expected(self) -> Callable[..., Tensor]:
        """(prediction, options) -> the z_0 that ddim and dpm++ head for."""

    def implicit_step(
        self, z_t: Tensor, z0: Tensor, t: int, s: int, eta: float, generator: SampleStreams
    ) -> Tensor:
        """One step of DDIM."""

    def snr(self, t: int) -> Tensor:
        """Signal-to-noise ratio."""


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


def check_sampler(sampler: Sampler, eta: float) -> None:
    """Raise InputError for an unknown sampler, or eta where it has no meaning or out of range."""
    if sampler not in get_args(Sampler):
        raise InputError(f"Expected a sampler of {get_args(Sampler)}, got {sampler!r}.")
    if not 0 <= eta <= 1 or (eta and sampler != "ddim"):
        raise InputError(f"eta is ddim's and lies in [0, 1], got {eta} with {sampler}.")


def read_temperature(value: object) -> float:
    """A temperature γ as a number; "argmax" is 0.

    Raises:
        InputError: another text, or no finite number from 0.
    """
    try:
        number = 0.0 if value == "argmax" else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"A temperature is a number from 0, or argmax, got {value!r:.80}.")
    return number


def draw(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    sampler: Sampler = "ddpm",
    eta: float = 0.0,
    on_step: OnStep | None = None,
    **options: Any,
) -> Tensor:
    """Draw z_0 by the sampler of a name.

    Args:
        process: the process.
        denoiser: the network.
        shape: of one latent, (S, h, w).
        steps: reverse steps, at most T.
        generator: a stream for each of the B samples.
        sampler: "ddpm" (`ancestral`), "ddim" (`ddim`) or "dpm++" (`dpm_solver`).
        eta: of ddim, in [0, 1].
        on_step: called after each step.
        options: of the process, such as a temperature.

    Returns:
        z_0, (B, S, h, w).

    Raises:
        InputError: an unknown sampler, or eta where it has no meaning or out of range.
    """
    check_sampler(sampler, eta)
    if sampler == "ddim":
        options["eta"] = eta
    loop: Callable[..., Tensor] = {"ddpm": ancestral, "ddim": ddim, "dpm++": dpm_solver}[sampler]
    return loop(process, denoiser, shape, steps, generator, on_step, **options)


def ancestral(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    on_step: OnStep | None = None,
    **options: Any,
) -> Tensor:
    """DDPM's ancestral sampling with any number of steps (Ho et al. 2020, algorithm 2).

    With a categorical process it is algorithm 2 of Scribano et al. 2023. Args as for `draw`.
    """

    def update(z_t: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        return process.step(z_t, prediction, t, s, generator, **options)

    return _reverse(process, denoiser, shape, steps, generator, update, on_step)


def ddim(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    on_step: OnStep | None = None,
    eta: float = 0.0,
    **options: Any,
) -> Tensor:
    """DDIM along the expected z_0 (Song et al. 2021, equation 12). Args as for `draw`."""

    def update(z_t: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        if s == 0:
            return process.finish(prediction, generator, **options)
        return process.implicit_step(
            z_t, process.expected(prediction, **options), t, s, eta, generator
        )

    return _reverse(process, denoiser, shape, steps, generator, update, on_step)


def dpm_solver(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    on_step: OnStep | None = None,
    **options: Any,
) -> Tensor:
    """DPM-Solver++ 2M along the expected z_0 (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    Its step is DDIM's at η = 0 from a z_0 extrapolated in λ = log SNR / 2; the last, whose λ is
    infinite, is of first order. Args as for `draw`.
    """
    earlier: tuple[Tensor, Tensor] | None = None  # ẑ_0 and h of the step before

    def update(z_t: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        nonlocal earlier
        if s == 0:
            return process.finish(prediction, generator, **options)
        z0 = expected = process.expected(prediction, **options)
        h = (process.snr(s) / process.snr(t)).log() / 2
        if earlier is not None:
            z0 = z0 + (z0 - earlier[0]) * h / (2 * earlier[1])
        earlier = expected, h
        return process.implicit_step(z_t, z0, t, s, 0.0, generator)

    return _reverse(process, denoiser, shape, steps, generator, update, on_step)


def _reverse(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    generator: SampleStreams,
    update: Update,
    on_step: OnStep | None,
) -> Tensor:
    times = time_grid(process.num_timesteps, steps)
    z = process.prior(shape, generator)
    estimate = None
    for t, s in pairwise(times):
        prediction = process.predict(denoiser, z, t, estimate)
        z = update(z, prediction, t, s)
        estimate = prediction.z0
        if on_step:
            on_step(s, z, prediction)
    return z
