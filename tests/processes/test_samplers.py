import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.base import Chance, Denoiser, Prediction
from lit_mbldm.processes.gaussian_forward import GaussianForward
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import Sampler, dpm_solver, draw
from lit_mbldm.processes.schedules import Schedule

EVERY_SAMPLER = pytest.mark.parametrize(
    ("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("dpm++", 0.0)]
)
MEAN, VARIANCE = 0.2, 0.01


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, i) for i in range(count)])


def alpha_bar(process: GaussianForward) -> Tensor:
    return process.log_alpha_bar.double().exp()


def exact_gaussian(process: GaussianForward) -> Denoiser:
    """E[z_0 | z_t] where z_0 ~ N(MEAN, VARIANCE)."""

    def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        a = alpha_bar(process)[(time[0] * process.num_timesteps).round().long()]
        gain = a.sqrt() * VARIANCE / (a * VARIANCE + 1 - a)
        return MEAN + gain * (z_t.double() - a.sqrt() * MEAN)

    return network


def probability_flow(process: GaussianForward, z_T: Tensor, s: int) -> Tensor:
    """Where the probability-flow ODE takes z_T by time s, for z_0 ~ N(MEAN, VARIANCE).

    The ODE moves a Gaussian's quantiles: (z_s - √ᾱ_s m)/std(z_s) stays what it was.
    """
    a = alpha_bar(process)
    std = (a * VARIANCE + 1 - a).sqrt()
    return a[s].sqrt() * MEAN + std[s] / std[-1] * (z_T - a[-1].sqrt() * MEAN)


def test_a_step_taken_again_is_of_first_order() -> None:
    process, z = GaussianProcess(), torch.zeros(2, 1, 1, 1)
    update = dpm_solver(process, Chance(streams(2)))
    for t, s, z0, is_plain in (
        (900, 700, 0.1, True),
        (900, 700, 0.2, True),
        (700, 500, 0.4, False),
    ):
        plain = process.ddim_step(z, z + z0, t, s, streams(2))
        found = update(z, Prediction(z + z0), t, s)
        assert torch.equal(found, plain) == is_plain  # the last goes on from the one before


@pytest.mark.parametrize("steps", [1, 2, 3, 50, 999, 1000])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_grid_falls_strictly_from_t_to_zero(steps: int, sampler: str, schedule: Schedule) -> None:
    times = GaussianProcess(schedule=schedule).time_grid(steps, sampler)
    assert times[0] == 1000
    assert times[-1] == 0
    assert len(times) == steps + 1
    assert all(t > s for t, s in pairwise(times))


@pytest.mark.parametrize(
    ("sampler", "eta", "message"),
    [
        ("euler", 0.0, r"'ddpm', 'ddim', 'dpm\+\+'.*'euler'"),
        *(("ddim", eta, "eta is ddim's") for eta in (1.5, -0.1, math.nan)),
        *((sampler, 0.5, "eta is ddim's") for sampler in ("ddpm", "dpm++")),
    ],
)
def test_unknown_samplers_and_misused_eta_are_refused_before_the_network_runs(
    sampler: Sampler, eta: float, message: str
) -> None:
    def network(*inputs: object) -> Tensor:
        raise AssertionError("the network ran")

    with pytest.raises(InputError, match=message):
        draw(GaussianProcess(), network, (1, 2, 2), 4, streams(1), sampler, eta)


@EVERY_SAMPLER
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_perfect_denoiser_recovers_z0_and_the_codes(
    sampler: Sampler, eta: float, steps: int
) -> None:
    process = CategoricalProcess()
    codes = torch.randint(0, 256, (1, 6, 4, 4))
    z0 = process.index.to_latent(codes)
    logits = 100 * torch.nn.functional.one_hot(codes, 256).movedim(-1, 2).flatten(1, 2).float()
    for made, output in [(GaussianProcess(objective="x0"), z0), (process, logits)]:
        found = draw(
            made, lambda z, *_, x=output: x.expand(len(z), -1, -1, -1), (6, 4, 4), steps,
            streams(2), sampler, eta,
        )  # fmt: skip
        assert torch.allclose(found, z0.expand(2, -1, -1, -1), atol=1e-6)


@EVERY_SAMPLER
def test_gaussian_data_keep_their_mean_and_spread(sampler: Sampler, eta: float) -> None:
    """With T steps: the mean within 0.005, the standard deviation within 4 %."""
    process = GaussianProcess(objective="x0", self_conditioning=False)
    network = exact_gaussian(process)
    z0 = draw(process, network, (1, 100, 100), 1000, streams(1), sampler, eta)
    assert z0.mean().item() == pytest.approx(MEAN, abs=0.005)
    assert z0.std().item() == pytest.approx(VARIANCE**0.5, rel=0.04)


@EVERY_SAMPLER
def test_two_codewords_keep_their_probabilities(sampler: Sampler, eta: float) -> None:
    """With 100 steps: within 0.02, three standard errors."""
    process = CategoricalProcess(likelihood=True, self_conditioning=False, codebook_size=16)
    prior = torch.full((1, 16, 1, 1), -torch.inf)
    prior[:, 4], prior[:, 12] = math.log(0.2), math.log(0.8)

    def network(z_t: Tensor, *_: object) -> Tensor:
        return prior.expand(len(z_t), 16, *z_t.shape[2:])

    z0 = draw(process, network, (1, 60, 60), 100, streams(1), sampler, eta)
    codes = process.index.to_codes(z0)
    assert set(codes.unique().tolist()) == {4, 12}
    assert (codes == 4).float().mean().item() == pytest.approx(0.2, abs=0.02)


@EVERY_SAMPLER
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.2])
def test_samples_have_the_softmax_s_frequencies(
    sampler: Sampler, eta: float, temperature: float
) -> None:
    """A network that ignores z_t: what comes out is the last step's draw, whatever the way."""
    process = CategoricalProcess(codebook_size=8)
    logits = 2 * torch.randn(8, generator=torch.Generator().manual_seed(0))

    def network(z_t: Tensor, *_: object) -> Tensor:
        return logits.view(1, 8, 1, 1).expand(len(z_t), 8, *z_t.shape[2:])

    z0 = draw(process, network, (1, 100, 100), 3, streams(1), sampler, eta, temperature=temperature)
    observed = process.index.to_codes(z0).flatten().long().bincount(minlength=8).double()
    expected = (logits.double() / temperature).softmax(0) * observed.sum()
    assert chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.2])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_a_temperature_acts_at_every_step(sampler: Sampler, temperature: float) -> None:
    """A network that ignores z_t: the path keeps the noise and heads for the tempered mean."""
    process = CategoricalProcess(codebook_size=8)
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0))
    path: dict[int, Tensor] = {}
    draw(
        process, lambda z_t, *_: logits.view(1, 8, 1, 1).expand(len(z_t), 8, 4, 4), (1, 4, 4), 4,
        streams(1), sampler, temperature=temperature,
        on_step=lambda s, z, _: path.update({s: z}),
    )  # fmt: skip
    scores = logits.double() / max(temperature, 1e-3)
    mean = (scores.softmax(0) * process.levels).sum().float()
    z_T = process.prior((1, 4, 4), streams(1))
    noise = process.implied_noise(z_T, mean, process.num_timesteps)
    assert len(path) == 4
    for s in path.keys() - {0}:
        assert torch.allclose(path[s], process.mix(mean, noise, s), atol=1e-4)


def test_ddim_with_eta_one_is_ancestral_sampling() -> None:
    """The variance of one step and of all is the posterior's (Song et al. 2021, section 4.2)."""
    process = GaussianProcess(objective="x0", self_conditioning=False)
    z_t, z0 = torch.randn(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    for t, s in [(1000, 999), (700, 200), (2, 1)]:
        implicit = process.ddim_step(z_t, z0, t, s, streams(1), eta=1.0)
        ancestral = process.step(z_t, Prediction(z0), t, s, Chance(streams(1)))
        assert torch.allclose(implicit, ancestral, atol=1e-5)
    network = exact_gaussian(process)
    ends = [
        draw(process, network, (1, 8, 8), 20, streams(2), sampler, eta)
        for sampler, eta in [("ddpm", 0.0), ("ddim", 1.0)]
    ]
    assert torch.allclose(*ends, atol=1e-5)


def error_at(sampler: Sampler, steps: int) -> Callable[[int], float]:
    """Mean distance of a path from the probability-flow ODE's, at the visited time nearest one."""
    process = GaussianProcess(objective="x0", self_conditioning=False)
    path: dict[int, Tensor] = {}
    draw(
        process, exact_gaussian(process), (1, 8, 8), steps, streams(1), sampler,
        on_step=lambda s, z, _: path.update({s: z}),
    )  # fmt: skip
    z_T = process.prior((1, 8, 8), streams(1)).double()
    errors = {
        s: (z - probability_flow(process, z_T, s)).abs().mean().item() for s, z in path.items()
    }
    return lambda near: errors[min(errors, key=lambda s: abs(s - near))]


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++", 2)])
def test_errors_fall_with_the_steps_to_the_order(sampler: Sampler, order: int) -> None:
    """Near t = 200: the last step, of first order in every sampler, is not among them."""
    few, many = (error_at(sampler, steps)(200) for steps in (20, 160))
    assert math.log2(few / many) / 3 == pytest.approx(order, rel=0.15)
