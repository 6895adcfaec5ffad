"""The lapped transform: an orthonormal filter across the borders of patches, and its inverse.

B images, C channels, H×W pixels, s pixels a patch side.

The s pixels that straddle a border in one direction, mirrored halves a and b, pass through
P = W diag(I, V) W with W = [[I, J], [J, -I]]/√2: their even part stays, V turns their odd part.
Patches then overlap by half a side on each side, so that neighbours share what they have in common
and errors fade into each other. P is orthonormal, so squared errors before and after are equal.
The outer half patch of an image stays as it is, which is what P does to a mirrored border.

Source: Tran, Liang, Tu, Lapped transform via time-domain pre- and post-filtering, IEEE Trans.
Signal Processing 51 (6), 2003; here with an orthogonal V.
"""

import torch
from torch import Tensor


def border_filter(odd: Tensor) -> Tensor:
    """Build P (s, s) from the orthogonal V (s/2, s/2) of the odd part."""
    half = len(odd)
    same = torch.eye(half).to(odd)
    mirrored = same.flip(0)
    W = torch.cat([torch.cat([same, mirrored], 1), torch.cat([mirrored, -same], 1)]) / 2**0.5
    return W @ torch.block_diag(same, odd) @ W


def lap(images: Tensor, odd: Tensor) -> Tensor:
    """Filter across all borders between patches, in both directions.

    Args:
        images: (B, C, H, W) float, H and W positive multiples of s.
        odd: V, (s/2, s/2) orthogonal.

    Returns:
        (B, C, H, W).
    """
    return _filter(images, border_filter(odd))


def unlap(images: Tensor, odd: Tensor) -> Tensor:
    """Invert `lap`; differentiable."""
    return _filter(images, border_filter(odd).t())


def overlapped_basis(odd: Tensor) -> Tensor:
    """What `lap` does in one direction to a patch inside an image: (s, 2s).

    Args:
        odd: V, (s/2, s/2).

    Returns:
        The weights of the 2s pixels around the patch in each of its s numbers.
    """
    P = border_filter(odd)
    half = len(odd)
    return torch.block_diag(P, P)[half : 3 * half]


def _filter(images: Tensor, P: Tensor) -> Tensor:
    (H, W), s = images.shape[2:], len(P)
    half = s // 2
    rows = images[:, :, half : H - half].unflatten(2, (H // s - 1, s))  # (B, C, n, s, W)
    images = torch.cat(
        [images[:, :, :half], (P @ rows).flatten(2, 3), images[:, :, H - half :]], dim=2
    )
    columns = images[..., half : W - half].unflatten(3, (W // s - 1, s))  # (B, C, H, n, s)
    return torch.cat(
        [images[..., :half], (columns @ P.t()).flatten(3), images[..., W - half :]], dim=3
    )
