from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from exact_field import (
    autoregressive,
    exact_network,
    relative_error,
    sampled_covariance,
    tangent_schedule,
)
from scipy.fft import dct
from torch import Tensor

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError
from lit_mbldm.processes import Blur, GaussianProcess, MultiStageProcess, Pool, Quantise, Truncate
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import Sampler, draw
from lit_mbldm.processes.stages import Stage

SHAPE = (4, 8, 8)
CHAINS: dict[str, Callable[[], list[Stage]]] = {
    "none": list,
    "pool": lambda: [Pool(2)],
    "pool twice": lambda: [Pool(2), Pool(2)],
    "blur, pool": lambda: [Blur(0.8), Pool(2)],
    "truncate twice": lambda: [Truncate(3), Truncate(1)],
    "truncate, pool": lambda: [Truncate(2), Pool(4)],
}
EVERY_CHAIN = pytest.mark.parametrize("chain", CHAINS)


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, i) for i in range(count)])


def staged(chain: str, T: int = 100, **options: float) -> MultiStageProcess:
    stages = CHAINS[chain]()
    boundaries = [0.4, 0.7][: len(stages)]
    process = MultiStageProcess(stages, boundaries, T, **options)  # type: ignore[arg-type]
    process.set_channels(SHAPE[0])
    return process


def perfect(process: MultiStageProcess, z0: Tensor) -> Callable[..., Tensor]:
    """The network that knows z_0 (1, C, h, w)."""

    def network(z_t: Tensor, time: Tensor, self_condition: Tensor, _: None) -> Tensor:
        assert self_condition.shape == z_t.shape
        t = (time * process.num_timesteps).round().long()
        x_t, residual = process.signal(z0, t)
        alpha, sigma = process.noises[process.stage_at(t)].alpha_sigma(t)
        return torch.cat([(alpha * z_t - x_t) / sigma, residual.expand_as(z_t)], dim=1)

    return network


@EVERY_CHAIN
def test_a_perfect_network_has_no_loss_and_every_sampler_draws_z0(chain: str) -> None:
    process = staged(chain)
    z0 = torch.rand(1, *SHAPE) * 2 - 1
    network = perfect(process, z0)
    for step in range(10):
        t = process.draw_times(streams(4, step), (step,))
        loss = process.loss(network, z0.expand(4, -1, -1, -1), t, streams(4))
        assert loss.shape == (4,)
        assert (loss < 1e-6).all()
    for sampler, eta, steps in [("ddpm", 0.0, 1), ("ddim", 0.0, 7), ("ddim", 0.5, 3)]:
        found = draw(process, network, SHAPE, steps, streams(2), sampler, eta)
        assert torch.allclose(found, z0.expand_as(found), atol=1e-4)


@EVERY_CHAIN
def test_steps_follow_the_shapes_through_a_grid_with_the_boundaries(chain: str) -> None:
    process = staged(chain)
    for steps in (1, 3, 50, 100):
        times = process.time_grid(steps)
        assert (times[0], times[-1]) == (100, 0)
        assert all(t > s for t, s in pairwise(times))
        assert set(process.starts) <= set(times)
        assert set(GaussianProcess(100).time_grid(steps)) <= set(times)
    z0, seen = torch.zeros(1, *SHAPE), []
    draw(
        process, perfect(process, z0), SHAPE, 5, streams(2),
        on_step=lambda s, z, _: seen.append((s, tuple(z.shape[1:]))),
    )  # fmt: skip
    assert seen == [(s, process.shape_at(SHAPE, s)) for s in process.time_grid(5)[1:]]
    for s, shape in seen:
        assert process.add_noise(z0, s, streams(1)).shape[1:] == shape
        assert process.carry(torch.zeros(2, *shape), s, 0).shape == (2, *SHAPE)


def test_the_signal_moves_from_each_stage_to_the_next() -> None:
    process, z0 = staged("pool twice"), torch.randn(1, *SHAPE)
    half, quarter = Pool(2).down(z0), Pool(4).down(z0)
    for t, expected in [(40, Pool(2).up(half)), (70, Pool(2).up(quarter)), (71, quarter),
                        (100, quarter), (20, (z0 + Pool(2).up(half)) / 2)]:  # fmt: skip
        assert torch.allclose(process.signal(z0, t)[0], expected, atol=1e-6)
    for t, clean in [(1, z0), (40, z0), (41, half), (70, half), (71, quarter)]:
        x_t, residual = process.signal(z0, t)
        assert torch.allclose(x_t + process.passed(t) * residual, clean, atol=1e-6)


def test_a_batch_has_one_stage_that_its_key_decides_and_times_are_uniform() -> None:
    process = staged("pool twice")
    stages, times = [], []
    for batch in range(1000):
        drawn, other = (process.draw_times(streams(3, seed), (batch,)) for seed in (2 * batch, -1))
        found = {process.stage_at(t) for t in (*drawn.tolist(), *other.tolist())}
        assert len(found) == 1
        stages.append(found.pop())
        times += drawn.tolist()
    shares = torch.tensor(stages).bincount() / len(stages)
    assert torch.allclose(shares, torch.tensor([0.4, 0.3, 0.3]), atol=0.05)
    assert set(times) == set(range(1, 101))


def test_the_coarse_signal_to_noise_ratio_has_the_gain_to_the_power() -> None:
    for power, factor in [(1.0, 4.0), (0.5, 2.0), (0.0, 1.0)]:
        fine, coarse, coarsest = staged("pool twice", snr_power=power).noises
        for t in (1, 50, 100):
            assert (coarse.snr(t) / fine.snr(t)).item() == pytest.approx(factor, rel=1e-4)
            assert (coarsest.snr(t) / fine.snr(t)).item() == pytest.approx(factor**2, rel=1e-4)


def test_without_stages_it_is_the_gaussian_process() -> None:
    process, plain = staged("none"), GaussianProcess(100, "cosine", "v")
    z0, t = torch.rand(3, *SHAPE), torch.tensor([3, 50, 100])

    def network(z_t: Tensor, *_: object) -> Tensor:
        return z_t / 2

    loss = process.loss(lambda z, *_: torch.cat([z / 2, 0 * z], 1), z0, t, streams(3))
    assert torch.allclose(loss, plain.loss(network, z0, t, streams(3)), rtol=1e-4)


@pytest.mark.parametrize("boundaries", [[0.5, 0.5], [0.7, 0.4], [0.0, 0.5], [0.5], [0.5, 1.1]])
def test_boundaries_that_do_not_rise_are_refused(boundaries: list[float]) -> None:
    with pytest.raises(InputError, match=r"Expected 2 boundaries.*got \[0"):
        MultiStageProcess([Pool(2), Pool(2)], boundaries)


def test_the_last_stage_reads_no_residual() -> None:
    process = staged("pool")
    z_t, t = torch.randn(2, 4, 4, 6), torch.tensor([60, 100])
    output = torch.randn(2, 8, 4, 6)
    prediction = process.read(output, z_t, t)
    assert torch.equal(prediction.drift, torch.zeros_like(z_t))
    losses = [
        process.loss(lambda z, *_, k=k: torch.cat([z, k * z], 1), z0, t, streams(2))
        for z0 in [torch.rand(2, *SHAPE, generator=torch.manual_seed(0))]
        for k in (0, 3)
    ]
    assert torch.equal(*losses)


def test_shapes_that_do_not_chain_and_dpm_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of 2 to pool, got 3×3"):
        staged("pool twice").shape_at((4, 6, 6), 100)
    with pytest.raises(InputError, match="fewer than its 3 channels, got keep: 3"):
        MultiStageProcess([Truncate(3), Truncate(3)], [0.3, 0.6]).set_channels(4)
    with pytest.raises(InputError, match="Quantise works on the latent as it is"):
        MultiStageProcess([Pool(2), Quantise()], [0.3, 0.6])
    process = staged("pool")
    with pytest.raises(InputError, match=r"one of \('ddpm', 'ddim'\), got 'dpm\+\+'"):
        draw(process, perfect(process, torch.zeros(1, *SHAPE)), SHAPE, 2, streams(1), "dpm++")


class FreshNoise(Pool):
    """Does not keep the noise at the boundary."""

    def lift(self, noise: Tensor, streams: SampleStreams) -> Tensor:
        return streams.normal(FIELD).to(noise)


class Unscaled(Pool):
    """Does not know that pooling divides the noise's variance."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = 1.0

    def lift(self, noise: Tensor, streams: SampleStreams) -> Tensor:
        return super().lift(self.factor * noise, streams)


FIELD = (1, 8, 8)
FIELD_COVARIANCE = torch.kron(autoregressive(8), autoregressive(8))
SLOW = pytest.mark.slow


def at_half(*stages: Stage) -> MultiStageProcess:
    process = MultiStageProcess(list(stages), [0.5][: len(stages)], 1600, self_conditioning=False)
    process.limit = None
    return tangent_schedule(process)


# stages, whether the network tells δ, η, and the error of the covariance by steps
TABLE = [
    ([], True, 0.0, {20: 0.3207, 100: 0.0736, 400: 0.0189, 1600: 0.0048}),
    ([Pool()], True, 0.0, {20: 0.3206, 100: 0.0736, 400: 0.0189, 1600: 0.0048}),
    ([Pool()], True, 1.0, {20: 0.3206, 100: 0.0773, 400: 0.0200, 1600: 0.0050}),
    ([Pool()], False, 0.0, {20: 0.3287, 100: 0.1014, 400: 0.0713, 1600: 0.0685}),
    ([FreshNoise()], True, 0.0, {1600: 0.0440}),
    ([Unscaled()], True, 0.0, {20: 0.1626, 100: 0.1381, 400: 0.1527, 1600: 0.1573}),
]
TRUNCATED = [
    (True, {20: 0.1880, 100: 0.0407, 400: 0.0103, 1600: 0.0026}),
    (False, {20: 0.1885, 100: 0.0424, 400: 0.0154, 1600: 0.0116}),
]


def by_steps(*rows: tuple[object, ...]) -> list[object]:
    """A case a number of steps; many steps take long."""
    return [
        pytest.param(*row[:-1], steps, error, marks=SLOW if steps > 100 else ())
        for row in rows
        for steps, error in row[-1].items()  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize(("stages", "drifts", "eta", "steps", "expected"), by_steps(*TABLE))
def test_covariance_of_a_field(
    stages: list[Stage], drifts: bool, eta: float, steps: int, expected: float
) -> None:
    """In closed form: stages err as the single one does, what leaves a part out does not fall.

    Fresh noise depends on how the boundary's signal is estimated: by 2e-3 to 7e-3 in few steps.
    """
    process = at_half(*stages)
    network = exact_network(process, FIELD, FIELD_COVARIANCE, drifts)
    found = sampled_covariance(process, network, FIELD, steps, eta)
    assert relative_error(found, FIELD_COVARIANCE) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("drifts", "steps", "expected"), by_steps(*TRUNCATED))
def test_covariance_of_truncated_coefficients(drifts: bool, steps: int, expected: float) -> None:
    basis = torch.from_numpy(dct(torch.eye(16).double().numpy(), axis=0, norm="ortho"))
    covariance = basis @ autoregressive(16) @ basis.mT
    process = at_half(Truncate(8))
    process.set_channels(16)
    network = exact_network(process, (16, 1, 1), covariance, drifts)
    found = sampled_covariance(process, network, (16, 1, 1), steps)
    assert relative_error(found, covariance) == pytest.approx(expected, abs=2e-4)


def test_the_single_stage_is_the_gaussian_process_s_own() -> None:
    staged, plain = at_half(), GaussianProcess(1600, objective="v", self_conditioning=False)
    plain.limit, plain.log_alpha_bar = None, staged.noises[0].log_alpha_bar
    network = exact_network(staged, FIELD, FIELD_COVARIANCE)
    one = sampled_covariance(staged, network, FIELD, 20)
    other = sampled_covariance(plain, lambda *told: network(*told)[:, :1], FIELD, 20)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("stages", [[Pool(), Pool()], [Blur(0.8), Pool()]], ids=str)
def test_composed_stages_err_as_the_single_one_does(stages: list[Stage]) -> None:
    process = MultiStageProcess(stages, [0.4, 0.7], 1600, self_conditioning=False)
    process.limit = None
    tangent_schedule(process)
    network = exact_network(process, FIELD, FIELD_COVARIANCE)
    found = sampled_covariance(process, network, FIELD, 100)
    assert relative_error(found, FIELD_COVARIANCE) == pytest.approx(0.0736, abs=3e-4)


@pytest.mark.parametrize(("sampler", "eta"), [("ddpm", 1.0), ("ddim", 0.0)])
def test_samples_of_a_field_have_the_covariance_of_the_closed_form(
    sampler: Sampler, eta: float
) -> None:
    """Whitened by it, all entries together are within four standard errors of the identity's."""
    process, count, n = at_half(Pool()), 2000, 64
    network = exact_network(process, FIELD, FIELD_COVARIANCE)
    expected = sampled_covariance(process, network, FIELD, 25, eta)
    z = draw(process, network, FIELD, 25, streams(count), sampler, 0.0).double().flatten(1)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(expected), z.mT, upper=False)
    error = (white @ white.mT / count - torch.eye(n)).square().sum() * count / (n * (n + 1))
    assert error.item() == pytest.approx(1, abs=4 * (4 / (n * (n + 1))) ** 0.5)


class Means(Latent):
    """Codes that are the means of 2×2 positions."""

    limit = None

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        return Pool(2).up(codes)

    def to_codes(self, z0: Tensor) -> Tensor:
        return Pool(2).down(z0)


@pytest.mark.parametrize("steps", [50, 200])
def test_a_field_drawn_by_way_of_its_codes_is_as_good_as_in_one_stage(steps: int) -> None:
    """In closed form, with the network that knows the field; the error falls as 1/steps."""
    stage, errors = Quantise(), []
    stage.use_latent(Means())
    fields = torch.linalg.cholesky(FIELD_COVARIANCE).mT.view(-1, *FIELD)
    kept = stage.down(fields).flatten(1)
    assert relative_error(kept.mT @ kept, FIELD_COVARIANCE) > 0.03
    for stages, boundaries in (([], []), ([stage], [0.5])):
        process = MultiStageProcess(stages, boundaries, 1600, self_conditioning=False)
        process.limit = None
        network = exact_network(tangent_schedule(process), FIELD, FIELD_COVARIANCE)
        found = sampled_covariance(process, network, FIELD, steps)
        errors.append(relative_error(found, FIELD_COVARIANCE))
    assert errors[1] == pytest.approx(errors[0], abs=2e-4)
    assert errors[1] < 7.6 / steps
