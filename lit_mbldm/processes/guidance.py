"""Guidance: a denoiser led away from what a poorer prediction says, or between two labels.

B samples, latents (B, C, h, w), T timesteps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_mbldm.processes.base import Condition, Denoiser
from lit_mbldm.processes.categorical_head import HeadedDenoiser

NO_LABEL = -1  # in a condition of labels


def guided(
    denoiser: Denoiser,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    guide: Denoiser | None = None,
) -> Denoiser:
    """Guide what a denoiser returns, be it ε, z_0, v or what a categorical process makes logits of.

    Without a guide it is classifier-free guidance (Ho & Salimans 2022), uncond + scale·(cond -
    uncond); with one autoguidance (Karras et al. 2024, arXiv 2406.02507, equation 3), guide(cond)
    + scale·(cond - guide(cond)). Outside an interval of t/T it is cond alone (Kynkäänniemi et al.
    2024, arXiv 2404.07724).

    Args:
        denoiser: a network that takes labels (B,) int64 as condition, -1 for none.
        scale: 1 is cond, 0 what it is led away from.
        interval: low and high, with guidance at low < t/T ≤ high.
        guide: a poorer network for the same predictions, such as an earlier checkpoint.

    Returns:
        The denoiser itself at scale 1 without a guide, else one that takes the same inputs, but
        one time for all samples.
    """
    if scale == 1 and guide is None:
        return denoiser
    return _Guided(denoiser, scale, interval, guide)


def mixed(denoiser: Denoiser, condition: Condition, weights: Tensor) -> Denoiser:
    """Blend what a denoiser returns for its condition with what it does for another one.

    Args:
        denoiser: a network, or a guided one.
        condition: labels (B,) int64 of the other end.
        weights: of that end, (B,) in [0, 1].
    """
    return _Mixed(denoiser, condition, weights)


class _Mixed:
    def __init__(self, denoiser: Denoiser, condition: Condition, weights: Tensor) -> None:
        self.denoiser, self.condition, self.weights = denoiser, condition, weights.view(-1, 1, 1, 1)
        if isinstance(denoiser, HeadedDenoiser):
            self.head, self.body = denoiser.head, denoiser.features

    def __call__(self, *inputs: Any) -> Tensor:
        return self._mix(self.denoiser, *inputs)

    def features(self, *inputs: Any) -> Tensor:
        """As of `HeadedDenoiser`, where the denoiser is one: a linear head may come after."""
        return self._mix(self.body, *inputs)

    def _mix(self, network: Callable[..., Tensor], *inputs: Any) -> Tensor:
        one, other = network(*inputs), network(*inputs[:3], self.condition)
        return torch.lerp(one.float(), other.float(), self.weights)


class _Guided:
    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        interval: tuple[float, float],
        guide: Denoiser | None,
    ) -> None:
        self.denoiser, self.scale, self.interval, self.guide = denoiser, scale, interval, guide
        # the weights of both predictions add up to 1, so that a linear head may come after them
        if guide is None and isinstance(denoiser, HeadedDenoiser):
            self.head, self.body = denoiser.head, denoiser.features

    def __call__(
        self, z_t: Tensor, time: Tensor, self_condition: Tensor, condition: Condition, /
    ) -> Tensor:
        return self._lead(self.denoiser, z_t, time, self_condition, condition)

    def features(self, *inputs: Any) -> Tensor:
        """As of `HeadedDenoiser`, where the denoiser is one and there is no guide."""
        return self._lead(self.body, *inputs)

    def _lead(
        self,
        network: Callable[..., Tensor],
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Condition,
    ) -> Tensor:
        told, (low, high) = (z_t, time, self_condition, condition), self.interval
        if not low < time[0] <= high:
            return network(*told)
        if self.guide is not None:
            better, poorer = network(*told).float(), self.guide(*told).float()
        else:
            assert condition is not None
            twice = (torch.cat([part, part]) for part in told[:3])
            labels = torch.cat([condition, torch.full_like(condition, NO_LABEL)])
            better, poorer = network(*twice, labels).float().chunk(2)
        return poorer + self.scale * (better - poorer)
