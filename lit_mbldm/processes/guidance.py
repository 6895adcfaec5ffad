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
Network = Callable[..., Tensor]  # a denoiser, or its features


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

    def lead(network: Network, *told: Any) -> Tensor:
        z_t, time, self_condition, condition = told
        if not interval[0] < time[0] <= interval[1]:
            return network(*told)
        if guide is not None:
            better, poorer = network(*told).float(), guide(*told).float()
        else:
            twice = (torch.cat([part, part]) for part in (z_t, time, self_condition))
            labels = torch.cat([condition, torch.full_like(condition, NO_LABEL)])
            better, poorer = network(*twice, labels).float().chunk(2)
        return poorer + scale * (better - poorer)

    return Wrapped(denoiser, lead, headed=guide is None)


def mixed(denoiser: Denoiser, condition: Condition, weights: Tensor) -> Denoiser:
    """Blend what a denoiser returns for its condition with what it does for another one.

    Args:
        denoiser: a network, or a guided one.
        condition: labels (B,) int64 of the other end.
        weights: of that end, (B,) in [0, 1].
    """

    def mix(network: Network, *told: Any) -> Tensor:
        one, other = network(*told), network(*told[:3], condition)
        return torch.lerp(one.float(), other.float(), weights.view(-1, 1, 1, 1))

    return Wrapped(denoiser, mix)


class Wrapped:
    """A denoiser whose every prediction is made by `around`, of one network and its inputs.

    `around` returns a sum of predictions whose weights add up to 1. The denoiser's linear head may
    therefore come after it, unless `headed` is false.
    """

    def __init__(
        self, denoiser: Denoiser, around: Callable[..., Tensor], headed: bool = True
    ) -> None:
        self.denoiser, self.around = denoiser, around
        if headed and isinstance(denoiser, HeadedDenoiser):
            self.head, self.body = denoiser.head, denoiser.features

    def __call__(self, *inputs: Any) -> Tensor:
        """Predict as the denoiser does, with what is `around`."""
        return self.around(self.denoiser, *inputs)

    def features(self, *inputs: Any) -> Tensor:
        """As of `HeadedDenoiser`, where the denoiser is one."""
        return self.around(self.body, *inputs)
