"""What stays, stays as the process would have it, and what is drawn agrees with it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError
from lit_mbldm.processes import (
    BernoulliProcess,
    Blur,
    GaussianProcess,
    MultiStageProcess,
    Pool,
    Quantise,
    Truncate,
)
from lit_mbldm.processes.base import Prediction, Process
from lit_mbldm.processes.given import Given
from lit_mbldm.processes.randomness import BlendedStreams, SampleStreams
from lit_mbldm.processes.samplers import Sampler, draw

N = 500


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, number) for number in range(count)])


class PairOfPositions:
    """The exact v of two standard normal positions of this correlation."""

    def __init__(self, process: GaussianProcess, correlation: float) -> None:
        self.process = process
        self.covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])

    def __call__(self, z_t: Tensor, time: Tensor, *_: Any) -> Tensor:
        t = (time * self.process.num_timesteps).round().long()
        alpha, sigma = (one[0, 0, 0, 0] for one in self.process.alpha_sigma(t))
        of_z_t = alpha**2 * self.covariance + sigma**2 * torch.eye(2)
        z0 = z_t @ (alpha * self.covariance @ torch.linalg.inv(of_z_t)).mT
        return (alpha * z_t - z0) / sigma


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_resampling_brings_what_is_drawn_to_what_stays(sampler: Sampler) -> None:
    process = GaussianProcess(100, "cosine", "v")
    process.limit = None
    z0 = torch.tensor([1.5, 0.0]).expand(N, 1, 1, 2)
    again = torch.tensor([False, True]).expand(N, 1, 1, 2)
    means = []
    for resamplings in (1, 5):
        given = Given(z0, again=again, resamplings=resamplings)
        network = PairOfPositions(process, 0.8)
        drawn = draw(process, network, (1, 1, 2), 20, streams(N), sampler, given=given)
        assert drawn[..., 0].eq(1.5).all()
        means.append(drawn[..., 1].mean().item())
    assert abs(means[1] - 1.2) < abs(means[0] - 1.2) / 2


@pytest.mark.parametrize(
    "process",
    [
        GaussianProcess(40, "cosine"),
        BernoulliProcess(40),
        MultiStageProcess([Blur(0.6), Pool(2)], [0.4, 0.7], 40),
    ],
)
@pytest.mark.parametrize(("s", "t"), [(20, 24), (16, 20), (0, 4)])  # 16 ends the first stage
def test_a_step_back_has_the_noise_of_its_time(process: Process, s: int, t: int) -> None:
    z0 = torch.randn(1, 1, 4, 4, generator=torch.manual_seed(0)).sign().expand(N, -1, -1, -1)
    prediction = Prediction(z0)
    if isinstance(process, MultiStageProcess):
        x_t, residual = process.signal(z0, t)
        drift = process.passed(t) * residual
        prediction = Prediction(x_t + drift, drift=drift)
    z_s = process.add_noise(z0, s, streams(N))
    back = process.step_back(z_s, prediction, s, t, streams(N, 1))
    expected = process.add_noise(z0, t, streams(N, 2))
    assert back.shape == expected.shape
    assert (back.mean(0) - expected.mean(0)).abs().mean() < 0.1
    assert back.std(0).mean() == pytest.approx(expected.std(0).mean().item(), abs=0.03)


class Levels(Latent):
    """One code a position, of which all its numbers are the level."""

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        return codes.float().expand(-1, 2, -1, -1)

    def to_codes(self, z0: Tensor) -> Tensor:
        return (3 * z0.mean(1, keepdim=True)).round()


def quantise() -> Quantise:
    stage = Quantise()
    stage.use_latent(Levels())
    return stage


@pytest.mark.parametrize(
    "stages",
    [[Pool(2)], [Blur(0.6), Pool(2)], [Truncate(1), Pool(2)], [quantise()], [quantise(), Pool(2)]],
    ids=str,
)
def test_what_depends_on_the_mask_is_what_changes_with_it(stages: list[Any]) -> None:
    boundaries = [0.4, 0.7][: len(stages)]
    process = MultiStageProcess(stages, boundaries, 10)
    process.set_channels(2)
    z0 = torch.randn(1, 2, 8, 8, generator=torch.manual_seed(0))
    marked = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    marked[..., 2:5, 4:5] = True
    other = torch.where(marked, z0 + 1, z0)
    for t in range(11):
        one, changed = process.signal(z0, t)[0], process.signal(other, t)[0]
        assert not ((one != changed) & ~process.spread(marked, t)).any()
    assert torch.equal(process.spread(marked, 0), marked)
    assert not process.spread(marked, 10).all()


def test_blended_streams_keep_their_distribution_and_their_ends() -> None:
    weights = torch.tensor([0.0, 0.3, 0.5, 1.0])
    a, b = streams(1).keys * 4, streams(1, 1).keys * 4
    for kind, mean, deviation in (("normal", 0, 1), ("uniform", 0.5, 12**-0.5)):
        blended = BlendedStreams(SampleStreams(a), SampleStreams(b), weights)
        numbers = getattr(blended, kind)((20_000,))
        assert torch.equal(numbers[:1], getattr(SampleStreams(a[:1]), kind)((20_000,)))
        assert torch.equal(numbers[3:], getattr(SampleStreams(b[:1]), kind)((20_000,)))
        assert numbers.mean(1).sub(mean).abs().max() < 0.03
        assert numbers.std(1).sub(deviation).abs().max() < 0.02
        near = torch.corrcoef(numbers)[0]
        assert near[1] > near[2] > near[3]

    branches = blended.branch(3, slice(1, 4)).normal((2,))
    assert torch.equal(branches[2:], SampleStreams(b[:1]).branch(3).normal((2,)))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match="strength from 0"):
        Given(torch.zeros(1, 1, 1, 1), strength)
