"""Fitting the lapped transform to photographs.

D numbers a patch, s pixels a patch side.
"""

import torch
from torch import Tensor

from lit_mbldm.codecs.lapping import overlapped_basis


def fit_lapping(covariance: Tensor, bits: float) -> Tensor:
    """Find the transform whose patches a Gaussian source would lose least of at a rate.

    Args:
        covariance: (C·(2s)², C·(2s)²) of the pixels around a patch, channel, row, column.
        bits: a patch.

    Returns:
        V of `lap`, (s/2, s/2) float64 orthogonal.
    """
    C, s = 3, round((len(covariance) / 3) ** 0.5) // 2
    window = covariance.double().view(C, 4 * s * s, C, 4 * s * s)
    free = torch.zeros(s // 2, s // 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        basis = overlapped_basis(torch.linalg.matrix_exp(free - free.t()))
        T = torch.kron(basis, basis)  # (s², 4s²)
        patch = torch.einsum("pi,cidj,qj->cpdq", T, window, T).reshape(C * s * s, C * s * s)
        value = distortion(torch.linalg.eigvalsh(patch), bits).log()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return torch.linalg.matrix_exp(free - free.t())


def distortion(variances: Tensor, bits: float) -> Tensor:
    """Least squared error of independent Gaussians at a rate, by reverse water-filling.

    Source: Cover and Thomas, Elements of Information Theory, theorem 10.3.3.

    Args:
        variances: (D,) ascending.
        bits: for all of them together.

    Returns:
        A number: the sum of all errors.
    """
    logs = variances.clamp(min=1e-12).flip(0).log2()
    counts = torch.arange(1, len(logs) + 1).to(logs)
    levels = (logs.cumsum(0) - 2 * bits) / counts  # log of the water where the first n stand out
    n = int((logs > levels).sum())
    return n * 2 ** levels[n - 1] + variances.flip(0)[n:].sum()
