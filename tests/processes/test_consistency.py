import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.processes import ConsistencyProcess, GaussianProcess
from lit_mbldm.processes.base import Process
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw

T = 100


def streams(count: int, *key: int) -> SampleStreams:
    return SampleStreams([(*key, i) for i in range(count)])


def test_before_the_first_halving_the_loss_is_that_of_diffusion() -> None:
    z0, t = torch.randn(4, 3, 4, 4), torch.tensor([1, 30, 80, T])

    def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        return z_t.roll(1, 1) * time.view(-1, 1, 1, 1)

    tuned, plain = (
        process(T, "cosine", "v").loss(network, z0, t, streams(4))
        for process in (
            ConsistencyProcess,
            lambda *how: GaussianProcess(*how, self_conditioning=False),
        )
    )
    assert torch.allclose(tuned, plain, rtol=1e-4)


def test_the_earlier_time_comes_closer_with_each_halving() -> None:
    process, t = ConsistencyProcess(1000), torch.arange(1, 1001)
    process.progress, before = 0.0, process.earlier(t)
    assert not before.any()
    for k in range(1, 9):
        process.progress = (k + 0.5) / 9
        s = process.earlier(t)
        assert ((s < t) & (s >= before)).all()
        noise = process.snr(s[600:] + 1).rsqrt() / process.snr(t[600:]).rsqrt()  # above 1 - n/2ᵏ
        assert (noise.flatten() > 1 - 3 / 2**k).all()
        before = s


def test_a_consistent_network_has_no_loss_and_needs_one_step() -> None:
    process = ConsistencyProcess(T)
    process.limit, only = None, torch.randn(1, 2, 4, 4)  # all data: v is known exactly

    def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        alpha, sigma = process.alpha_sigma((time * T).round().long().clamp(min=1))
        return (alpha * z_t - only) / sigma

    z0, t = only.expand(5, -1, -1, -1), torch.tensor([1, 2, 40, 90, T])
    for process.progress in (0.0, 0.3, 1.0):
        assert process.loss(network, z0, t, streams(5)).max() < 1e-6
    for steps in (1, 3):
        made = draw(process, network, only.shape[1:], steps, streams(5), "consistency")
        assert torch.allclose(made, z0, atol=1e-4)


class Perceptron(nn.Module):
    """Of one number and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        )

    def forward(self, z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        return self.layers(torch.cat([z_t.flatten(1), time[:, None]], 1)).view_as(z_t)


@pytest.mark.slow
def test_tuning_brings_one_step_close_to_the_data() -> None:
    """Data of ±1: a diffusion model's first estimate is near their mean, a tuned one's near one."""
    torch.manual_seed(0)
    network = Perceptron()

    def fit(process: Process, count: int, run: int) -> None:
        process.limit = None
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for i in range(count):
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 - i / count)
            if isinstance(process, ConsistencyProcess):
                process.progress = i / count
            z0, t = torch.randint(2, (256, 1, 1, 1)) * 2.0 - 1, torch.randint(1, T + 1, (256,))
            loss = process.loss(network, z0, t, streams(256, run, i)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def off(steps: int) -> float:
        with torch.no_grad():
            made = draw(tuning, network, (1, 1, 1), steps, streams(500, 9), "consistency")
        return float((made.abs() - 1).abs().mean())

    tuning = ConsistencyProcess(T)
    fit(GaussianProcess(T, "cosine", "v", self_conditioning=False), 400, 0)
    before = off(1), off(4)
    fit(tuning, 600, 1)
    assert off(1) < 0.6 * before[0]
    assert off(4) < 0.6 * before[1]
