"""Latents larger than a denoiser learned: it sees them in overlapping windows.

B samples, latents (B, C, h, w).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_mbldm.processes.base import Denoiser
from lit_mbldm.processes.guidance import Network, Wrapped


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

    def blend(network: Network, *told: Any) -> Tensor:
        z_t, time, self_condition, condition = told
        spatial = condition is not None and condition.ndim == 4
        h, w = z_t.shape[2:]
        total, weights = None, z_t.new_zeros(h, w)
        for rows in spans(h, side, overlap):
            for columns in spans(w, side, overlap):
                place = (..., rows, columns)
                seen = condition[place] if spatial else condition
                drawn = network(z_t[place], time, self_condition[place], seen).float()
                weight = _hat(rows, z_t)[:, None] * _hat(columns, z_t)
                if total is None:
                    total = drawn.new_zeros(*drawn.shape[:2], h, w)
                total[place] += weight * drawn
                weights[rows, columns] += weight
                on_window()
        assert total is not None
        return total / weights

    return Wrapped(denoiser, blend)


def spans(length: int, side: int, overlap: int) -> list[slice]:
    """Windows of one axis, evenly spaced, that reach both ends; one where the axis is short."""
    count = 1 + max(0, math.ceil((length - side) / (side - overlap)))
    last = max(0, length - side)
    starts = [round(last * i / max(1, count - 1)) for i in range(count)]
    return [slice(start, min(start + side, length)) for start in starts]


def _hat(span: slice, like: Tensor) -> Tensor:
    """Weights of a window along an axis, which fall linearly from its middle."""
    n = span.stop - span.start
    place = torch.arange(n, device=like.device)
    return torch.minimum(place + 1, n - place).float()
