"""Fitting the lapped transform to photographs.

C channels, D numbers a patch, s pixels a patch side.
"""

import torch
from torch import Tensor

from lit_mbldm.codecs.lapping import overlapped_basis

# Variance of what rounding to uint8 adds: without it, images of a few pure shapes would ask for
# filters without bounds.
_ROUNDING = 1 / 12


def fit_lapping(covariance: Tensor, channels: int, bits: float) -> Tensor:
    """Find the transform with which a Gaussian source loses least at a rate.

    Args:
        covariance: (C·(2s)², C·(2s)²) of the pixels around a patch: channel, row, column.
        channels: C.
        bits: a patch.

    Returns:
        V of `lap`, (s/2, s/2) float64.
    """
    side = round((len(covariance) / channels) ** 0.5)  # 2s
    rounded = covariance.double() + _ROUNDING * torch.eye(len(covariance))
    pixels = rounded.view(channels, side**2, channels, side**2)
    odd = torch.eye(side // 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([odd], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        basis = overlapped_basis(odd)
        T = torch.kron(basis, basis)  # (s², 4s²)
        patch = torch.einsum("pi,cidj,qj->cpdq", T, pixels, T).flatten(0, 1).flatten(1)
        value = least_distortion(torch.linalg.eigvalsh(patch), bits).log()
        value.backward()
        return value

    optimizer.step(loss)
    return odd.detach()


def least_distortion(variances: Tensor, bits: float) -> Tensor:
    """Least squared error of independent Gaussians at a rate, by reverse water-filling.

    Source: Cover and Thomas, Elements of Information Theory, theorem 10.3.3.

    Args:
        variances: (D,) ascending.
        bits: for all of them together.

    Returns:
        The sum of their errors, a number.
    """
    logs = variances.clamp(min=1e-12).flip(0).log2()
    counts = torch.arange(1, len(logs) + 1).to(logs)
    levels = (logs.cumsum(0) - 2 * bits) / counts  # log of the water where the first n stand out
    n = int((logs > levels).sum())
    return n * 2 ** levels[n - 1] + variances.flip(0)[n:].sum()
