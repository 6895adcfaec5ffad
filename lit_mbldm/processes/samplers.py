"""Samplers: how the steps from z_T to z_0 are taken."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Chance, Condition, Denoiser, Prediction, Process
from lit_mbldm.processes.gaussian_forward import GaussianForward
from lit_mbldm.processes.given import Given
from lit_mbldm.processes.randomness import SampleStreams

Sampler = Literal["ddpm", "ddim", "dpm++", "consistency"]
# (z_t, prediction at t, t, s) -> z_s
Update = Callable[[Tensor, Prediction, int, int], Tensor]
# called after each step with (s, z_s, prediction at t)
OnStep = Callable[[int, Tensor, Prediction], object]


def draw(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    streams: SampleStreams,
    sampler: Sampler = "ddpm",
    eta: float = 0.0,
    temperature: float = 1.0,
    condition: Condition = None,
    on_step: OnStep | None = None,
    given: Given | None = None,
) -> Tensor:
    """Draw z_0, (B, C, h, w), for a shape (C, h, w) and B streams, in at most T steps.

    Raises:
        InputError: a sampler that is not the process's, or eta or steps out of range.
    """
    check_sampler(process, sampler, eta)
    update = _UPDATES[sampler](process, Chance(streams, temperature, eta))
    times, rounds = process.time_grid(steps, sampler), 1
    if given is not None:
        times, rounds = given.times(times), given.resamplings
    if given is None or times[0] == process.num_timesteps:
        z = process.prior(process.shape_at(shape, times[0]), streams)
    else:
        z = given.begin(process, times[0], streams)
    aside = streams.branch(-1)  # the noise of what is drawn depends on no mask
    estimate = None
    for t, s in pairwise(times):
        for left in reversed(range(rounds)):
            prediction = process.predict(denoiser, z, t, estimate, condition)
            z, estimate = update(z, prediction, t, s), prediction.z0
            if given is not None:
                z = given.keep(process, z, s, aside)
            if left:
                z = process.step_back(z, prediction, s, t, streams)
        estimate = process.carry(prediction.z0, t, s)
        if on_step:
            on_step(s, z, prediction)
    return z


def ancestral(process: Process, chance: Chance) -> Update:
    """DDPM's ancestral sampling with any number of steps (Ho et al. 2020, algorithm 2).

    With a categorical process it is algorithm 2 of Scribano et al. 2023.
    """
    return partial(process.step, chance=chance)


def ddim(process: Process, chance: Chance) -> Update:
    """DDIM along the expected z_0 (Song et al. 2021, equation 12)."""
    return partial(process.ddim, chance=chance)


def dpm_solver(process: GaussianForward, chance: Chance) -> Update:
    """DPM-Solver++ 2M along the expected z_0 (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    Its step is DDIM's at η = 0 from a z_0 extrapolated in λ = log SNR / 2. The last step, whose λ
    is infinite, is of first order, and so is one that is taken again.
    """
    earlier: tuple[Tensor, Tensor, int] | None = None  # ẑ_0, h and s of the step before

    def update(z_t: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        nonlocal earlier
        if s == 0:
            return process.finish(prediction, chance)
        z0 = expected = process.expected(prediction, chance.temperature)
        h = (process.snr(s) / process.snr(t)).log() / 2
        if earlier is not None and earlier[2] == t:
            z0 = z0 + (z0 - earlier[0]) * h / (2 * earlier[1])
        earlier = expected, h, s
        return process.ddim_step(z_t, z0, t, s, chance.streams)

    return update


def consistency(process: GaussianForward, chance: Chance) -> Update:
    """Noise each estimate of z_0 anew (Song et al. 2023, arXiv 2303.01469, algorithm 1)."""

    def update(z_t: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        return process.add_noise(process.finish(prediction, chance), s, chance.streams)

    return update


# what makes an Update of a process and a Chance
_UPDATES: dict[str, Callable[..., Update]] = {
    "ddpm": ancestral,
    "ddim": ddim,
    "dpm++": dpm_solver,
    "consistency": consistency,
}


def check_sampler(process: Process, sampler: Sampler, eta: float) -> None:
    """Raise InputError for a sampler that the process lacks, or eta of another or out of range."""
    if sampler not in process.samplers:
        raise InputError(
            f"A {type(process).__name__} is sampled with one of {process.samplers}, got"
            f" {sampler!r}."
        )
    if not 0 <= eta <= 1 or (eta and sampler != "ddim"):
        raise InputError(f"eta is ddim's and lies in [0, 1], got {eta} with {sampler}.")


def read_temperature(value: object) -> float:
    """Read a temperature as a number; "argmax" is 0.

    Raises InputError for another text, or no finite number from 0.
    """
    try:
        number = 0.0 if value == "argmax" else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"A temperature is a number from 0, or argmax, got {value!r:.80}.")
    return number
