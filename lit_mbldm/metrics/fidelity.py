"""FID, KID, precision and recall of sets of features.

N images of F features each.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from lit_mbldm.errors import InputError

KEPT = 10_000
NEIGHBOURS = 3
FEW = 1000  # samples, below which FID says little
_ROWS = 1000  # of a kernel at once


@dataclass(frozen=True)
class FeatureSet:
    """What the scores need of a set of features, on the CPU.

    Attributes:
        total: (F,) float64, the sum.
        outer: (F, F) float64, the sum of outer products.
        count: N.
        kept: up to 10,000 of the features, evenly spread over the set, (K, F) float32.
    """

    total: Tensor
    outer: Tensor
    count: int
    kept: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "FeatureSet":
        """The set of features (N, F) float."""
        N, x = len(features), features.cpu().double()
        return cls(x.sum(0), x.T @ x, N, features[spread(0, N, N, KEPT)].float().cpu())

    @property
    def mean(self) -> Tensor:
        """(F,) float64."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """(F, F) float64, unbiased."""
        return (self.outer - self.count * self.mean.outer(self.mean)) / (self.count - 1)


@dataclass(frozen=True)
class Fidelity:
    """How far generated features lie from real ones.

    Attributes:
        fid: Fréchet distance, lower is better (Heusel et al. 2017).
        kid: unbiased squared MMD with the cubic kernel, lower is better (Bińkowski et al. 2018).
        kid_std: its standard error over draws of both sets.
        precision: share of generated features within the real manifold, in [0, 1]
            (Kynkäänniemi et al. 2019, equation 2, k = 3).
        recall: share of real features within the generated manifold, in [0, 1].
    """

    fid: float
    kid: float
    kid_std: float
    precision: float
    recall: float


def fidelity(real: Tensor, generated: Tensor) -> Fidelity:
    """Compare features (N, F) with features (M, F), as `compare` does."""
    return compare(FeatureSet.of(real), FeatureSet.of(generated))


def compare(real: FeatureSet, generated: FeatureSet) -> Fidelity:
    """Compare two sets of features; KID, precision and recall use those kept.

    Warns of fewer than 1,000 generated ones, whose FID says little.

    Raises:
        InputError: fewer than four of either.
    """
    if min(real.count, generated.count) <= NEIGHBOURS:
        raise InputError(
            f"Scores need at least {NEIGHBOURS + 1} images of each kind, got {real.count} real and"
            f" {generated.count} generated ones."
        )
    if generated.count < FEW:
        warnings.warn(
            f"FID from {generated.count:,} samples is far too high and says little: it needs at"
            f" least {FEW:,}, and papers take 10,000 to 50,000. Draw more samples.",
            stacklevel=2,
        )
    ratios = prc_features_to_metric(
        generated.kept.double(),
        real.kept.double(),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=KEPT,
        save_cpu_ram=True,
        verbose=False,
    )
    size = min(len(real.kept), len(generated.kept))
    x, y = (z[spread(0, len(z), len(z), size)].double() for z in (real.kept, generated.kept))
    return Fidelity(fid(real, generated), *kid(x, y), ratios["precision"], ratios["recall"])


def fid(a: FeatureSet, b: FeatureSet) -> float:
    """Fréchet distance |μ_a - μ_b|² + Tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), in float64.

    With Σ = L Lᵀ the last trace is the sum of the singular values of L_aᵀ L_b. torchmetrics sums
    roots of the eigenvalues of Σ_a Σ_b, where rounding of the many zeros of a set with fewer images
    than features adds up.
    """
    root = torch.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance)).sum()
    variance = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + variance - 2 * root)


def kid(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Unbiased squared MMD of n features each, (n, F) float64, and its standard error.

    The error is the jackknife's, which leaves out one pair (x_i, y_i) after another.
    """
    n = len(x)
    xx, yy, xy = (_row_sums(a, b) for a, b in ((x, x), (y, y), (x, y)))
    within = xx - _kernel(x, x) + yy - _kernel(y, y)  # the sums over j ≠ i, (n,)
    value = within.sum() / (n * (n - 1)) - 2 * xy.sum() / n**2
    without = within.sum() - 2 * within
    crossing = xy.sum() - xy - _row_sums(y, x) + _kernel(x, y)
    left_out = without / ((n - 1) * (n - 2)) - 2 * crossing / (n - 1) ** 2  # (n,)
    error = ((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt()
    return float(value), float(error)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """k(a_i, b_i) = (a_i·b_i / F + 1)³ of rows (n, F), (n,)."""
    return ((a * b).mean(1) + 1) ** 3


def _row_sums(a: Tensor, b: Tensor) -> Tensor:
    """The sums of k(a_i, b_j) over j, (n,)."""
    rows = [((part @ b.T / b.shape[1] + 1) ** 3).sum(1) for part in a.split(_ROWS)]
    return torch.cat(rows)


def spread(start: int, stop: int, count: int, kept: int) -> Tensor:
    """Which of the positions start to stop - 1 belong to `kept` evenly spread over `count`.

    Returns:
        (stop - start,) bool.
    """
    g, kept = torch.arange(start, stop), min(kept, count)
    return (g + 1) * kept // count > g * kept // count


def _factor(covariance: Tensor) -> Tensor:
    """L (F, rank) of Σ = L Lᵀ."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    kept = values > rounding
    return vectors[:, kept] * values[kept].sqrt()
