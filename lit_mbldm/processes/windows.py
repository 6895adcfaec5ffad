"""Latents larger than a denoiser learned: it sees them in overlapping windows.

B samples, latents (B, C, h, w).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_mbldm.processes.base import Denoiser
from lit_mbldm.processes.categorical_head import HeadedDenoiser


def windowed(
    denoiser: Denoiser,
    side: int,
    overlap: int,
    on_window: Callable[[], object] = lambda: None,
) -> Denoiser:
    """Let a denoiser see a latent in windows, and blend what it predicts where they overlap.

    All windows share one latent, so that samples have no seams. Source: Bar-Tal et al. 2023
    (MultiDiffusion, arXiv 2302.08113), equation 5, with weights that fall towards the borders.

    Args:
        denoiser: a network, or a guided one; a spatial condition is cut as the latent is.
        side: positions of a window's side; a latent that is no larger is one window.
        overlap: the least that neighbours share, below `side`.
        on_window: called after each window.
    """
    return _Windowed(denoiser, side, overlap, on_window)


def spans(length: int, side: int, overlap: int) -> list[slice]:
    """Windows of one axis, evenly spaced, that reach both ends; one where the axis is short."""
    count = 1 + max(0, math.ceil((length - side) / (side - overlap)))
    last = max(0, length - side)
    starts = [round(last * i / max(1, count - 1)) for i in range(count)]
    return [slice(start, min(start + side, length)) for start in starts]


class _Windowed:
    def __init__(
        self, denoiser: Denoiser, side: int, overlap: int, on_window: Callable[[], object]
    ) -> None:
        self.denoiser, self.side, self.overlap = denoiser, side, overlap
        self.on_window = on_window
        # weights add up to 1, so that a linear head may come after them
        if isinstance(denoiser, HeadedDenoiser):
            self.head, self.body = denoiser.head, denoiser.features

    def __call__(self, *inputs: Any) -> Tensor:
        return self._blend(self.denoiser, *inputs)

    def features(self, *inputs: Any) -> Tensor:
        """As of `HeadedDenoiser`, where the denoiser is one."""
        return self._blend(self.body, *inputs)

    def _blend(
        self,
        network: Callable[..., Tensor],
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None,
    ) -> Tensor:
        h, w = z_t.shape[2:]
        total, weights = None, z_t.new_zeros(h, w)
        for rows in spans(h, self.side, self.overlap):
            for columns in spans(w, self.side, self.overlap):
                place = (..., rows, columns)
                told = condition
                if condition is not None and condition.ndim == 4:
                    told = condition[place]
                drawn = network(z_t[place], time, self_condition[place], told).float()
                weight = _hat(rows, z_t)[:, None] * _hat(columns, z_t)
                if total is None:
                    total = drawn.new_zeros(*drawn.shape[:2], h, w)
                total[place] += weight * drawn
                weights[rows, columns] += weight
                self.on_window()
        assert total is not None
        return total / weights


def _hat(span: slice, like: Tensor) -> Tensor:
    """Weights of a window along an axis, which fall linearly from its middle."""
    n = span.stop - span.start
    place = torch.arange(n, device=like.device)
    return torch.minimum(place + 1, n - place).float()
