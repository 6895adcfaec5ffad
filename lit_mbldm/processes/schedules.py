"""Noise schedules: what is left at t = 0 (clean) to T of a number or a bit, pure functions of T.

Sources of ᾱ: linear, Ho et al. 2020; cosine, Nichol & Dhariwal 2021; sigmoid, Jabri et al. 2022.
Of k: Wang et al. 2023, arXiv 2304.04820; the sigmoid is ᾱ's.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from lit_mbldm.errors import check_choice

Schedule = Literal["linear", "cosine", "sigmoid"]


def alpha_bar(schedule: Schedule, num_timesteps: int) -> Tensor:
    """The signal's share of the variance at each time.

    Args:
        schedule: `linear` has β from 1e-4 to 2e-2 at T = 1000, scaled by 1000/T elsewhere.
        num_timesteps: T.

    Returns:
        (T+1,) float64, decreasing from ᾱ_0 = 1 to ᾱ_T > 0.

    Raises:
        InputError: an unknown schedule.
    """
    check_choice(Schedule, schedule=schedule)
    T = num_timesteps
    if schedule == "linear":
        scale = 1000 / T
        betas = torch.linspace(scale * 1e-4, scale * 2e-2, T, dtype=torch.float64)
    else:
        u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
        curve = _cosine(u) if schedule == "cosine" else _sigmoid(u)
        betas = 1 - curve[1:] / curve[:-1]
    alphas = 1 - betas.clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), alphas.cumprod(0)])


def survival(schedule: Schedule, num_timesteps: int) -> Tensor:
    """The correlation k_t of a bit with its clean value at each time.

    Args:
        schedule: `linear` is 1 - t/T, `cosine` (1 + cos(πt/T))/2.
        num_timesteps: T.

    Returns:
        (T+1,) float64, decreasing from k_0 = 1 to k_T = 0.

    Raises:
        InputError: an unknown schedule.
    """
    check_choice(Schedule, schedule=schedule)
    u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    if schedule == "linear":
        return 1 - u
    return (1 + torch.cos(math.pi * u)) / 2 if schedule == "cosine" else _sigmoid(u)


def _cosine(u: Tensor, offset: float = 0.008) -> Tensor:
    return torch.cos((u + offset) / (1 + offset) * math.pi / 2).square()


def _sigmoid(u: Tensor, start: float = -3.0, end: float = 3.0) -> Tensor:
    low, high = (torch.tensor(v, dtype=torch.float64).sigmoid() for v in (start, end))
    return (high - (u * (end - start) + start).sigmoid()) / (high - low)
