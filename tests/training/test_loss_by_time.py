import pytest
import torch

from lit_mbldm.training.loss_by_time import LossByTime

CPU = torch.device("cpu")


def test_means_are_those_of_each_range_over_all_updates() -> None:
    by_time = LossByTime()
    by_time.update(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.05, 0.1, 0.15]))
    by_time.update(torch.tensor([6.0, 7.0, 9.0]), torch.tensor([0.02, 0.95, 1.0]))
    means = by_time.pop_means("x", CPU)
    assert list(means)[:2] == ["x/0.0-0.1", "x/0.1-0.2"]
    assert means["x/0.0-0.1"] == pytest.approx((1 + 2 + 6) / 3)
    assert means["x/0.1-0.2"] == pytest.approx(5)
    assert means["x/0.9-1.0"] == pytest.approx((7 + 9) / 2)


@pytest.mark.parametrize("num_timesteps", [10, 200, 1000, 4000])
def test_ten_ranges_share_the_times_evenly(num_timesteps: int) -> None:
    by_time = LossByTime()
    t = torch.arange(1, num_timesteps + 1)
    by_time.update(t.float(), t / num_timesteps)
    share = num_timesteps // 10
    for number, mean in enumerate(by_time.pop_means("x", CPU).values()):
        low, high = number * share + 1, (number + 1) * share
        assert mean == pytest.approx((low + high) / 2)
    assert all(mean.isnan() for mean in by_time.pop_means("x", CPU).values())


def test_means_are_on_the_device_that_processes_communicate_by() -> None:
    means = LossByTime().pop_means("x", torch.device("meta"))
    assert all(mean.is_meta for mean in means.values())
