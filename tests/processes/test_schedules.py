import pytest
import torch

from lit_mbldm.processes.schedules import alpha_bar, survival


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("T", [10, 100, 1000])
def test_alpha_bar_falls_from_one_and_stays_positive(schedule: str, T: int) -> None:
    curve = alpha_bar(schedule, T)
    assert curve.shape == (T + 1,)
    assert curve[0] == 1
    assert (curve.diff() < 0).all()
    assert 0 < curve[-1] < 0.01


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("T", [1, 64, 1000])
def test_survival_falls_from_one_to_zero(schedule: str, T: int) -> None:
    curve = survival(schedule, T)
    assert (curve[0], curve[-1]) == (1, 0)
    assert (curve.diff() < 0).all()
    if T % 2 == 0:
        assert curve[T // 2] == pytest.approx(0.5)


def test_linear_schedule_is_ddpm_s() -> None:
    curve = alpha_bar("linear", 1000)
    assert curve[1] == pytest.approx(1 - 1e-4)  # SNR 9999 at the first step
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    assert torch.allclose(curve[1:].log(), torch.log1p(-betas).cumsum(0))


def test_cosine_schedule_is_the_closed_form_before_clipping() -> None:
    t = torch.tensor(500.0, dtype=torch.float64)

    def f(t: torch.Tensor) -> torch.Tensor:
        return torch.cos((t / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2

    assert alpha_bar("cosine", 1000)[500] == pytest.approx(float(f(t) / f(t * 0)))
