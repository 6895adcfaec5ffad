import pytest
import torch
from torch import Tensor

from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, i) for i in range(count)])


@pytest.mark.parametrize(("t", "s"), [(1000, 999), (500, 120), (2, 1), (7, 0)])
def test_posterior_is_bayes_rule(t: int, s: int) -> None:
    process = GaussianProcess()
    a_t, a_s = (process.log_alpha_bar[i].double().exp().item() for i in (t, s))
    z0, z_t = 0.3, -0.7
    mean, std = process.posterior(torch.full((1, 1, 1, 1), z_t), torch.tensor(z0), t, s)
    if s == 0:
        assert mean.item() == pytest.approx(z0)
        assert std.item() == 0
        return
    # N(z_s; √a_s z0, 1-a_s) · N(z_t; r z_s, 1-r²), with r² = a_t/a_s
    r2 = a_t / a_s
    precision = 1 / (1 - a_s) + r2 / (1 - r2)
    expected = (a_s**0.5 * z0 / (1 - a_s) + r2**0.5 * z_t / (1 - r2)) / precision
    assert mean.item() == pytest.approx(expected, rel=1e-4)
    assert std.item() == pytest.approx(precision**-0.5, rel=1e-4)


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_every_objective_recovers_z0_and_noise_from_its_exact_target(objective: str) -> None:
    process = GaussianProcess(objective=objective, self_conditioning=False)
    z0 = (torch.rand(4, 6, 4, 4) * 2 - 1) * 0.99  # not clipped when it comes back
    eps = torch.randn_like(z0)
    t = torch.tensor([1, 400, 800, 1000])
    z_t = process.mix(z0, eps, t)
    a = process.log_alpha_bar[t].double().exp().view(-1, 1, 1, 1).float()
    target = {"eps": eps, "x0": z0, "v": a.sqrt() * eps - (1 - a).sqrt() * z0}[objective]
    predicted = process.predict(lambda *_: target, z_t, t)
    assert torch.allclose(predicted.z0, z0, atol=2e-4)
    assert torch.allclose(process.implied_noise(z_t, z0, t), eps, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "weight"),
    [
        ("eps", lambda snr: min(snr, 5) / snr),
        ("x0", lambda snr: min(snr, 5)),
        ("v", lambda snr: min(snr, 5) / (snr + 1)),
    ],
)
def test_min_snr_weights(objective: str, weight) -> None:  # type: ignore[no-untyped-def]
    process = GaussianProcess(objective=objective)
    for t in (1, 200, 1000):
        a = process.log_alpha_bar[t].double().exp().item()
        found = process.loss_weight(torch.tensor([t])).item()
        assert found == pytest.approx(weight(a / (1 - a)), rel=1e-5)


def test_loss_of_the_three_objectives_is_one_loss() -> None:
    """With γ = ∞ each weighted error is SNR·‖z0 - ẑ0‖², up to v's and ε's own factors."""
    z0, t = torch.rand(2, 6, 4, 4) * 2 - 1, torch.tensor([300, 700])
    guess = torch.zeros_like(z0)
    losses = {}
    for objective in ("eps", "x0", "v"):
        process = GaussianProcess(
            objective=objective, self_conditioning=False, min_snr_gamma=float("inf")
        )
        a = process.log_alpha_bar[t].double().exp().view(-1, 1, 1, 1).float()

        def network(z_t: Tensor, *_: object, a: Tensor = a, objective: str = objective) -> Tensor:
            eps = (z_t - a.sqrt() * guess) / (1 - a).sqrt()
            v = (a.sqrt() * z_t - guess) / (1 - a).sqrt()
            return {"eps": eps, "x0": guess, "v": v}[objective]

        losses[objective] = process.loss(network, z0, t, streams(2))
    assert torch.allclose(losses["eps"], losses["x0"], rtol=1e-4)
    assert torch.allclose(losses["v"], losses["x0"], rtol=1e-4)


def test_self_conditioning_flips_one_coin_a_sample_and_takes_the_clipped_estimate() -> None:
    process = GaussianProcess(objective="x0")
    seen = []

    def network(z_t: Tensor, time: Tensor, self_condition: Tensor, condition: None) -> Tensor:
        seen.append(self_condition)
        return torch.full_like(z_t, 3.0)

    process.loss(network, torch.zeros(64, 1, 2, 2), torch.full((64,), 10), streams(64))
    first, second = seen
    assert (first == 0).all()
    got = second.flatten(1)
    assert ((got == 0).all(1) | (got == 1).all(1)).all()  # none, or 3 clipped to 1
    assert 16 < (got[:, 0] == 1).sum() < 48
    assert len(first) == (got[:, 0] == 1).sum()
