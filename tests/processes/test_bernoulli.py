"""Diffusion on bits, against sums over all that the bits can be."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs.bits import from_signs, to_signs
from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import BernoulliProcess, JointBernoulliProcess, categorical_head
from lit_mbldm.processes.base import Chance, Denoiser
from lit_mbldm.processes.bernoulli import BernoulliForward, reverse_log_odds
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw

STATES = to_signs(torch.arange(8), 3)  # of three bits, (8, 3)
CUBE = (torch.arange(8).double() + 1).square() / 204  # their probabilities
EVERY_PROCESS = pytest.mark.parametrize("made", [BernoulliProcess, JointBernoulliProcess])


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, i) for i in range(count)])


def of_three_bits(process: BernoulliForward) -> BernoulliForward:
    codec: Any = SimpleNamespace(codebook_size=8)
    process.use(codec)
    return process


def chain(prior: Tensor, steps: int, plug_in: bool, last: str) -> Tensor:
    """What a sampler makes of fair coins, for a network that knows the prior (2ⁿ,), with k = 1-t.

    Each bit is drawn by its own posterior; the last step is as the others, drawn from the network's
    estimate as it is, or the more probable value of that.
    """
    n = len(prior).bit_length() - 1
    states = to_signs(torch.arange(2**n), n).double()
    found = torch.full_like(prior, 1 / len(prior))
    for i in range(steps):
        k_t, k_s, ends = i / steps, (i + 1) / steps, i == steps - 1
        posterior = ((1 + k_t * states[:, None] * states) / 2).prod(-1) * prior  # (z_t, z_0)
        up = (posterior @ (states > 0).double()) / posterior.sum(1, keepdim=True)  # (z_t, n)
        c = up.logit() - 2 * math.atanh(k_t) * states
        counts_twice = plug_in and (last == "same" or not ends)
        log_odds = reverse_log_odds(up.logit() if counts_twice else c, states, k_t, k_s)
        if ends and last == "threshold":
            log_odds = log_odds.sign() * torch.inf
        found = found @ (log_odds[:, None] * states).sigmoid().prod(-1)  # (z_t, z_s)
    return found


@pytest.mark.parametrize(
    ("plug_in", "last", "expected"),
    [
        (False, "drawn", [0.2, 0.2, 0.2, 0.2]),
        (False, "threshold", [0.2750, 0.2188, 0.2047, 0.2012]),
        (True, "drawn", [0.2240, 0.2928, 0.3221, 0.3305]),
    ],
)
def test_one_bit_keeps_its_probability_by_the_exact_step_alone(
    plug_in: bool, last: str, expected: list[float]
) -> None:
    prior = torch.tensor([0.8, 0.2]).double()
    found = [float(chain(prior, S, plug_in, last)[1]) for S in (4, 16, 64, 256)]
    assert found == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("plug_in", "expected"),
    [
        (False, [0.0488, 0.0187, 0.0050, 0.0013, 0.0003, 0.0001]),
        (True, [0.0488, 0.1114, 0.1472, 0.1565, 0.1588, 0.1593]),
    ],
)
def test_three_bits_that_depend_on_each_other_need_exact_steps_and_many(
    plug_in: bool, expected: list[float]
) -> None:
    found = [chain(CUBE, S, plug_in, "same") for S in (1, 4, 16, 64, 256, 1024)]
    distances = [float((one - CUBE).abs().sum() / 2) for one in found]
    assert distances == pytest.approx(expected, abs=6e-5)


def test_the_reverse_step_is_the_sum_over_the_clean_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    k_t, k_s, c = torch.rand(3, 1000, generator=generator, dtype=torch.float64)
    k_t, k_s, c = k_t * k_s, k_s, 20 * (c - 0.5)
    for z_t in torch.tensor([1, -1]).double():
        joint = {
            (z0, z_s): (z0 * c).sigmoid() * (1 + k_s * z0 * z_s) * (1 + k_t / k_s * z_s * z_t)
            for z0 in (1, -1)
            for z_s in (1, -1)
        }
        up, down = (joint[1, z_s] + joint[-1, z_s] for z_s in (1, -1))
        for i, expected in enumerate(up / (up + down)):
            found = reverse_log_odds(c[i], z_t, float(k_t[i]), float(k_s[i]))
            assert abs(float(found.sigmoid() - expected)) < 1e-12
        full = c[0] + 2 * math.atanh(0.3) * z_t
        assert torch.allclose(reverse_log_odds(c[0], z_t, 0.3, 1.0), full, rtol=1e-12)


@pytest.mark.parametrize(
    ("target", "posterior", "expected"),
    [("cavity", "exact", 0.2), ("flip", "exact", 0.2), ("cavity", "plug_in", 0.2928)],
)
def test_one_bit_comes_out_as_its_target_and_posterior_say(
    target: Any, posterior: Any, expected: float
) -> None:
    process = BernoulliProcess(16, target=target, posterior=posterior)

    def network(z_t: Tensor, *_: object) -> Tensor:
        c = torch.full_like(z_t, math.log(0.2 / 0.8))
        return c if target == "cavity" else -z_t * c

    z0 = draw(process, network, (1, 300, 300), 16, streams(1))
    assert float((z0 > 0).float().mean()) == pytest.approx(expected, abs=0.006)


def knows(process: BernoulliForward, prior: Tensor) -> Denoiser:
    """A network that knows the distribution (8,) of three bits."""

    def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        if isinstance(process, JointBernoulliProcess):
            return prior.log().float().view(1, 8, 1, 1).expand(len(z_t), 8, *z_t.shape[2:])
        t = (time[0] * process.num_timesteps).round().long()
        evidence = process.evidence(z_t, t).movedim(1, -1).double()  # (B, h, w, 3)
        posterior = (evidence @ STATES.double().mT / 2 + prior.log()).softmax(-1)
        up = posterior @ (STATES > 0).double()
        return (up.logit() - evidence).movedim(-1, 1)

    return network


def counts(z: Tensor) -> Tensor:
    """How often each state of three bits (B, 3, h, w) occurs, (8,)."""
    return from_signs(z.movedim(1, -1)).flatten().bincount(minlength=8)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize(
    ("process", "steps"),
    [(BernoulliProcess, 100), (JointBernoulliProcess, 100), (JointBernoulliProcess, 1)],
)
def test_samples_of_three_bits_have_their_frequencies(
    process: Any, steps: int, schedule: str
) -> None:
    made = of_three_bits(process(1000, schedule, self_conditioning=False))
    z0 = draw(made, knows(made, CUBE), (3, 100, 100), steps, streams(1))
    assert z0.abs().unique().tolist() == [1]
    assert chisquare(counts(z0), CUBE * 10_000).pvalue > 1e-3


def test_a_thousand_timesteps_are_sampled_in_sixteen() -> None:
    process = of_three_bits(BernoulliProcess(1000))
    z0 = draw(process, knows(process, CUBE), (3, 100, 100), 16, streams(1))
    expected = chain(CUBE, 16, plug_in=False, last="same")
    assert chisquare(counts(z0), expected * 10_000).pvalue > 1e-3


@EVERY_PROCESS
@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_temperature_divides_what_the_surroundings_say(
    made: Any, temperature: float, steps: int
) -> None:
    """Of independent bits the tempered distribution is drawn exactly, in any number of steps."""
    c = torch.tensor([1.0, -0.5, 0.3])
    scores = STATES @ c / 2  # log-probabilities of the states, but for a constant
    process = of_three_bits(made(100))
    output = scores if made is JointBernoulliProcess else c

    def network(z_t: Tensor, *_: object) -> Tensor:
        return output.view(1, -1, 1, 1).expand(len(z_t), -1, *z_t.shape[2:])

    z0 = draw(process, network, (3, 80, 80), steps, streams(1), temperature=temperature)
    if temperature == 0:
        assert torch.equal(z0, c.sign().view(1, 3, 1, 1).expand_as(z0))
    else:
        expected = (scores.double() / temperature).softmax(0) * 6400
        assert chisquare(counts(z0), expected).pvalue > 1e-3


def test_the_joint_step_is_the_same_in_mixed_precision() -> None:
    process = of_three_bits(JointBernoulliProcess(100))
    z_t = process.prior((3, 80, 80), streams(2))
    prediction = process.predict(knows(process, CUBE), z_t, 2)
    expected = process.step(z_t, prediction, 2, 1, Chance(streams(2, 1), 0.5))
    with torch.autocast("cpu", torch.bfloat16):
        found = process.step(z_t, prediction, 2, 1, Chance(streams(2, 1), 0.5))
    assert torch.equal(found, expected)


@EVERY_PROCESS
def test_noise_flips_a_bit_with_half_of_what_does_not_survive(made: Any) -> None:
    process = of_three_bits(made(100, "cosine"))
    z0 = process.prior((3, 100, 100), streams(4))
    t = torch.tensor([0, 30, 60, 100])
    flipped = (process.add_noise(z0, t, streams(4, 1)) != z0).double().mean((1, 2, 3))
    expected = (1 - process.survival[t]) / 2
    assert torch.allclose(flipped, expected, atol=0.012)  # four standard errors
    assert flipped[0] == 0


@pytest.mark.parametrize("target", ["cavity", "flip"])
def test_the_loss_is_least_for_the_cavity_log_odds(target: Any) -> None:
    """Of bits that are 1 with probability 0.2, whatever the noise."""
    process = BernoulliProcess(100, target=target, self_conditioning=False)
    z0 = (streams(50).uniform((1, 40, 40)) < 0.2).float() * 2 - 1
    truth = math.log(0.2 / 0.8)
    slopes = []
    for guess in (truth - 0.3, truth, truth + 0.3):
        c = torch.tensor(guess, requires_grad=True)

        def network(z_t: Tensor, *_: object, c: Tensor = c) -> Tensor:
            return c.expand_as(z_t) if target == "cavity" else -z_t * c

        loss = process.loss(network, z0, torch.full((50,), 40), streams(50, 1)).mean()
        slopes.append(float(torch.autograd.grad(loss, c)[0]))
    assert slopes[0] < -5 * abs(slopes[1])
    assert slopes[2] > 5 * abs(slopes[1])


@pytest.mark.parametrize("limit", [1, 2**30], ids=["tiny", "whole"])
def test_the_joint_loss_in_chunks_is_the_cross_entropy(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(categorical_head, "_AT_ONCE_CPU", limit)
    process = of_three_bits(JointBernoulliProcess(100, self_conditioning=False))
    torch.manual_seed(0)
    unet = UNet(6, process.output_channels(6), base_channels=8, channel_multipliers=(1,))
    torch.nn.init.normal_(unet.head.weight, std=0.3)
    z0, t = process.prior((6, 4, 4), streams(3)), torch.tensor([5, 50, 100])
    z_t = process.add_noise(z0, t, streams(3, 1))
    output = unet(z_t, t / 100, torch.zeros_like(z_t)).unflatten(1, (2, 8)).movedim(2, -1)
    k = process.survival[t].float().view(3, 1, 1, 1, 1, 1)
    bits = z_t.unflatten(1, (2, 3)).movedim(2, -1)  # (B, S, h, w, n)
    logits = output + ((1 + k * bits[..., None, :] * STATES) / 2).log().sum(-1)
    codes = from_signs(z0.unflatten(1, (2, 3)).movedim(2, -1))
    nats = F.cross_entropy(logits.movedim(-1, 1), codes, reduction="none").mean((1, 2, 3))
    found = process.loss(unet, z0, t, streams(3, 1))
    torch.testing.assert_close(found, nats / 3)
    for one, other in zip(*(torch.autograd.grad(x.sum(), unet.head.weight)
                            for x in (found, nats / 3)), strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@EVERY_PROCESS
def test_the_estimate_is_the_expected_bit(made: Any) -> None:
    process = of_three_bits(made(100))
    z_t = process.prior((3, 5, 5), streams(2))
    found = process.predict(knows(process, CUBE), z_t, 60).z0
    likelihood = process.evidence(z_t, 60).movedim(1, -1) @ STATES.mT / 2
    expected = (likelihood + CUBE.log()).softmax(-1) @ STATES.double()
    assert torch.allclose(found, expected.movedim(-1, 1).float(), atol=1e-5)


def test_what_bits_do_not_have_is_told() -> None:
    with pytest.raises(InputError, match=r"exact.*plug_in.*'best'"):
        BernoulliProcess(posterior="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"one of \('ddpm',\), got 'dpm\+\+'"):
        draw(BernoulliProcess(), lambda z, *_: z, (1, 2, 2), 2, streams(1), "dpm++")
    codec: Any = SimpleNamespace(codebook_size=100)
    with pytest.raises(InputError, match="power of two from 2 to 256, not 100"):
        JointBernoulliProcess().use(codec)


@EVERY_PROCESS
def test_weights_of_times_fall_with_their_noise_and_have_mean_one(made: Any) -> None:
    weighted, even = of_three_bits(made(100, min_snr_gamma=5)), of_three_bits(made(100))
    weights = weighted.loss_weight[1:]
    assert weights.mean().item() == pytest.approx(1, abs=1e-4)
    assert (weights.diff() <= 0).all()
    assert weights[-1] < 1e-3
    z0, t = torch.ones(3, 3, 2, 2), torch.tensor([1, 50, 100])
    network = torch.nn.Conv2d(3, weighted.output_channels(3), 1)
    losses = [one.loss(lambda z, *_: network(z), z0, t, streams(3)) for one in (weighted, even)]
    assert torch.allclose(losses[0], losses[1] * weighted.loss_weight[t])
    with pytest.raises(InputError, match="positive min_snr_gamma"):
        made(min_snr_gamma=0)
