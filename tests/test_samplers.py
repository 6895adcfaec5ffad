from itertools import pairwise

import pytest

from lit_mbldm.errors import InputError
from lit_mbldm.samplers import time_grid


@pytest.mark.parametrize("steps", [1, 3, 50, 999, 1000])
def test_grid_falls_strictly_from_t_to_zero(steps: int) -> None:
    times = time_grid(1000, steps)
    assert times[0] == 1000
    assert times[-1] == 0
    assert len(times) == steps + 1
    assert all(t > s for t, s in pairwise(times))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=r"\[1, 1000\]"):
        time_grid(1000, steps)
