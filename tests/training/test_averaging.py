import numpy as np
import pytest
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.training import PowerEMA
from lit_mbldm.training.callbacks.averaging import power_of_width


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_the_average_has_this_width_however_long_the_run(width: float) -> None:
    average = PowerEMA(width)._kwargs["multi_avg_fn"]
    for steps in (200, 2000):
        weights = torch.eye(steps)[0].clone()  # step n's parameters are the n-th unit vector
        for n in range(1, steps):
            average([weights], [torch.eye(steps)[n]], torch.tensor(n))
        assert float(weights.sum()) == pytest.approx(1)
        at = np.arange(1, steps + 1) / steps
        mean = float((weights * torch.tensor(at)).sum())
        spread = float((weights * torch.tensor((at - mean) ** 2)).sum()) ** 0.5
        assert spread == pytest.approx(width, rel=0.05)
        gamma = power_of_width(width)
        assert mean == pytest.approx((gamma + 1) / (gamma + 2), rel=0.02)


def test_other_widths_are_refused() -> None:
    with pytest.raises(InputError, match="width of the average"):
        PowerEMA(0.3)
