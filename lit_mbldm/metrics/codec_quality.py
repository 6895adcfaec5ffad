"""Metrics of a codec: quality of its images, use and order of its codebooks.

B images, S codebooks of K codewords of d numbers each.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_mbldm.errors import InputError

ORDINALITY_DISTANCES = (1, 2, 4, 8, 16)
_SSIM_WINDOW = 7
# Variances are the unbiased ones, n/(n-1) of the means over a window of n = 49; torchmetrics takes
# the means, for which K2 (0.03) shrinks in proportion.
_SSIM_K2 = 0.03 * math.sqrt((_SSIM_WINDOW**2 - 1) / _SSIM_WINDOW**2)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all channels and pixels, in dB.

    Args:
        a: (3, H, W) or (B, 3, H, W) uint8.
        b: the same shape.

    Returns:
        Scalar or (B,) float64; inf for equal images.

    Raises:
        InputError: shapes differ or are no RGB images, or another dtype.

    Example:
        >>> image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        >>> psnr(image, image + 1)
        tensor(48.1308, dtype=torch.float64)
    """
    _check_pair(a, b)
    squared_errors = (a.double() - b.double()).square()
    return 10 * torch.log10(255**2 / squared_errors.flatten(-3).mean(-1))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity as scikit-image has it: mean over R, G and B, 7×7 uniform window.

    Source: Wang et al. 2004.

    Args:
        a: (3, H, W) or (B, 3, H, W) uint8, sides of at least 7.
        b: the same shape.

    Returns:
        Scalar or (B,) float32 in [-1, 1].

    Raises:
        InputError: shapes differ or are no RGB images, or another dtype.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        >>> ssim(images, images)
        tensor([1., 1.])
    """
    _check_pair(a, b)
    if min(a.shape[-2:]) < _SSIM_WINDOW:
        raise InputError(
            f"SSIM needs sides of at least {_SSIM_WINDOW} pixels, got {tuple(a.shape[-2:])}."
        )
    shape = (-1, *a.shape[-3:])
    _, similarity = structural_similarity_index_measure(
        a.reshape(shape).float(),
        b.reshape(shape).float(),
        gaussian_kernel=False,
        kernel_size=_SSIM_WINDOW,
        data_range=255.0,
        k2=_SSIM_K2,
        reduction="none",
        return_full_image=True,
    )  # (B, 3, H, W)
    edge = _SSIM_WINDOW // 2  # windows that reach over the border do not count
    return similarity[..., edge:-edge, edge:-edge].flatten(1).mean(1).view(a.shape[:-3])


def codebook_usage(codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How evenly codewords are used.

    Args:
        codes: (B, S, h, w) of any integer dtype, range [0, K-1].
        codebook_size: K.

    Returns:
        Of each codebook, (S,) float64: the part that occurs at all, in (0, 1], and the perplexity,
        in [1, K].
    """
    channels = codes.long().transpose(0, 1).flatten(1)  # (S, Bhw)
    counts = torch.stack([channel.bincount(minlength=codebook_size) for channel in channels])
    p = counts.double() / channels.shape[1]  # (S, K)
    return (p > 0).double().mean(1), torch.special.entr(p).sum(1).exp()


def ordinality(codewords: Tensor, distances: Sequence[int] = ORDINALITY_DISTANCES) -> Tensor:
    """Mean distance of codewords (K, d) that lie near by index, relative to a random pair.

    Below 1 where neighbours by index are neighbours in space; about 1 in a random order.

    Returns:
        (len(distances),) float64, for each distance by index; nan for one of K or more.
    """
    points = codewords.double()
    K, random_pair = len(points), torch.pdist(points).mean()
    near = [(points[n:] - points[: max(K - n, 0)]).norm(dim=1).mean() for n in distances]
    return torch.stack(near) / random_pair


def rank_correlation(codewords: Tensor) -> float:
    """Spearman's rank correlation of distance by index and in space over pairs of codewords (K, d).

    In [-1, 1], 0 where their order tells nothing; nan of fewer than 3 codewords.
    """
    if len(codewords) < 3:
        return math.nan
    index = torch.arange(len(codewords), dtype=torch.float64)[:, None]
    return float(spearman_corrcoef(torch.pdist(index), torch.pdist(codewords.double().cpu())))


def _check_pair(a: Tensor, b: Tensor) -> None:
    fits = a.ndim in (3, 4) and a.shape == b.shape and a.shape[-3] == 3
    if not fits or a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise InputError(
            "Expected two uint8 images of one shape (3, H, W) or (B, 3, H, W), got"
            f" {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}."
        )
