"""Guided predictions against their formulas, closed forms and unchunked heads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import BernoulliProcess, CategoricalProcess, GaussianProcess
from lit_mbldm.processes.base import Process
from lit_mbldm.processes.guidance import guided
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw

LABELS = torch.tensor([0, 2, 1])


def network(outputs: int, seed: int = 0) -> UNet:
    """A network of three classes whose every weight matters."""
    torch.manual_seed(seed)
    made = UNet(2, outputs, base_channels=16, channel_multipliers=(1,), blocks_per_level=1)
    made.set_classes(3)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


def inputs(time: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 2, 4, 4), torch.full((3,), time), torch.randn(3, 2, 4, 4)


def test_the_scale_leads_from_no_label_to_the_label_and_beyond() -> None:
    net, given = network(2), inputs()
    cond, uncond = net(*given, LABELS), net(*given, None)
    assert not torch.allclose(cond, uncond, atol=0.01)
    assert torch.equal(uncond, net(*given, torch.full((3,), -1)))
    assert guided(net, 1.0) is net
    for scale in (0.0, 0.3, 2.5):
        out = guided(net, scale)(*given, LABELS)
        assert torch.allclose(out, uncond + scale * (cond - uncond), atol=1e-4)


def test_a_guide_is_what_autoguidance_leads_away_from() -> None:
    net, poor, given = network(2), network(2, seed=5), inputs()
    for labels in (LABELS, None):
        good, bad = net(*given, labels), poor(*given, labels)
        out = guided(net, 2.0, guide=poor)(*given, labels)
        assert torch.allclose(out, 2 * good - bad, atol=1e-4)


@pytest.mark.parametrize(("time", "inside"), [(0.2, False), (0.3, True), (0.8, True), (0.9, False)])
def test_outside_the_interval_the_label_alone_is_followed(time: float, inside: bool) -> None:
    net, given = network(2), inputs(time)
    for guide in (None, network(2, seed=5)):
        out = guided(net, 3.0, (0.2, 0.8), guide)(*given, LABELS)
        assert torch.equal(out, net(*given, LABELS)) != inside


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5])
def test_gaussian_classes_are_sampled_where_guidance_leads(scale: float) -> None:
    """Of a class N(μ, s²) and all images N(0, s²) the guided score is that of N(scale·μ, s²)."""
    process, spread = GaussianProcess(1000, "cosine", "eps", self_conditioning=False), 0.1

    def exact(z_t: Tensor, time: Tensor, _: Tensor, labels: Any) -> Tensor:
        alpha, sigma = process.alpha_sigma((time * 1000).round().long())
        mean = (labels + 1).view(-1, 1, 1, 1) * 0.4  # no label: 0
        return sigma * (z_t - alpha * mean) / ((alpha * spread).square() + sigma.square())

    streams, labels = SampleStreams([(0, i) for i in range(400)]), torch.zeros(400).long()
    led = guided(exact, scale)
    z0 = draw(process, led, (1, 1, 1), 100, streams, "ddim", condition=labels)
    assert z0.mean() == pytest.approx(0.4 * scale, abs=0.02)
    assert z0.std() == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("guide", [None, 7], ids=["no label", "guide"])
def test_a_chunked_head_gives_the_guided_logits(guide: int | None) -> None:
    process = CategoricalProcess(codebook_size=5, gaussian_head=True, likelihood=True)
    net = network(process.output_channels(2))
    poor = None if guide is None else network(process.output_channels(2), guide)
    headless = poor and (lambda *given: poor(*given))
    z_t, _, estimate = inputs()

    def logits(denoiser: Any) -> Tensor:
        found = process.predict(denoiser, z_t, 500, estimate, LABELS).logits
        assert found is not None
        return found

    whole = logits(guided(lambda *given: net(*given), 1.7, guide=headless))
    assert torch.allclose(logits(guided(net, 1.7, guide=poor)), whole, atol=1e-3)
    assert not torch.allclose(logits(net), whole, atol=0.1)


@pytest.mark.parametrize(
    "process", [GaussianProcess(10), CategoricalProcess(10, codebook_size=5), BernoulliProcess(10)]
)
def test_every_process_samples_under_guidance_with_self_conditioning(process: Process) -> None:
    net = network(process.output_channels(2))

    def sample(scale: float) -> Tensor:
        led = guided(net, scale)
        streams = SampleStreams([(0, i) for i in range(3)])
        return draw(process, led, (2, 4, 4), 4, streams, process.samplers[0], condition=LABELS)

    assert sample(1.5).isfinite().all()
    assert not torch.equal(sample(1.5), sample(1.0))
