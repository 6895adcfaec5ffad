"""The lapped transform: a filter across the borders of patches, and its inverse.

B images, C channels, H×W pixels, s pixels a patch side.

The s pixels that straddle a border in one direction, two mirrored halves, pass through
P = W diag(I, V) W with W = [[I, J], [J, -I]]/√2: what is even about the border stays, V turns and
stretches what is odd. Patches then overlap by half a side on each side: neighbours share what they
have in common, and errors fade into each other. The outer half patch of an image stays as it is,
which is what P does to a mirrored border.

An error of the filtered numbers costs more in some than in others, where V is not orthogonal. Each
patch is therefore multiplied by Lᵀ, where L Lᵀ is the Gram matrix of the pixels that its numbers
stand for: equal errors then cost the same. A patch's squared error is that of its pixels, exactly;
an image's is it up to the correlation of the errors of neighbouring patches.

Source: Tran, Liang, Tu, Lapped transform via time-domain pre- and post-filtering, IEEE Trans.
Signal Processing 51 (6), 2003.
"""

import torch
from torch import Tensor


def lap(images: Tensor, odd: Tensor) -> Tensor:
    """Filter across all borders between patches, in both directions.

    Args:
        images: (B, C, H, W) float, H and W positive multiples of s.
        odd: V, (s/2, s/2) invertible.

    Returns:
        (B, C, H, W).
    """
    lapped = images.clone()
    filter_borders(lapped, odd)
    _multiply(lapped, _costs(odd), start=0)
    return lapped


def filter_borders(images: Tensor, odd: Tensor) -> None:
    """Do what `lap` does, in place, but for the costs of `patch_costs`.

    Args:
        images: (B, C, H, W) float, H and W positive multiples of s.
        odd: V, (s/2, s/2) invertible.
    """
    _multiply(images, border_filter(odd), start=len(odd))


def patch_costs(odd: Tensor) -> Tensor:
    """Lᵀ ⊗ Lᵀ (s², s²): what `filter_borders` leaves of `lap`, for a patch row by row."""
    costs = _costs(odd)
    return torch.kron(costs, costs)


def unlap(lapped: Tensor, inverses: tuple[Tensor, Tensor]) -> Tensor:
    """Invert `lap` by its `inverse_filters`; differentiable."""
    images, (costs, borders) = lapped.clone(), inverses
    _multiply(images, costs, start=0)
    _multiply(images, borders, start=len(borders) // 2)
    return images


def inverse_filters(odd: Tensor) -> tuple[Tensor, Tensor]:
    """The inverses of the costs and of the border's filter, each (s, s), of V (s/2, s/2)."""
    return torch.linalg.inv(_costs(odd)), torch.linalg.inv(border_filter(odd))


def overlapped_basis(odd: Tensor) -> Tensor:
    """What `lap` does in one direction to a patch inside an image.

    Args:
        odd: V, (s/2, s/2) invertible.

    Returns:
        (s, 2s): the weights of the pixels around the patch in each of its numbers.
    """
    P, half = border_filter(odd), len(odd)
    return _costs(odd) @ torch.block_diag(P, P)[half : 3 * half]


def border_filter(odd: Tensor) -> Tensor:
    """Build P (s, s) from V (s/2, s/2)."""
    same = torch.eye(len(odd)).to(odd)
    mirrored = same.flip(0)
    W = torch.cat([torch.cat([same, mirrored], 1), torch.cat([mirrored, -same], 1)]) / 2**0.5
    return W @ torch.block_diag(same, odd) @ W


def _costs(odd: Tensor) -> Tensor:
    """Lᵀ (s, s), from the pixels (2s) that a unit of each of a patch's numbers stands for."""
    inverse, half = torch.linalg.inv(border_filter(odd)), len(odd)
    pixels = torch.block_diag(inverse, inverse)[:, half : 3 * half]  # (2s, s)
    return torch.linalg.cholesky(pixels.t() @ pixels).t()


def _multiply(images: Tensor, matrix: Tensor, start: int) -> None:
    """Multiply runs of s rows, then of s columns, in place; `start` at both ends stay."""
    (H, W), s = images.shape[2:], len(matrix)
    rows = images[:, :, start : H - start].unflatten(2, ((H - 2 * start) // s, s))
    rows.copy_(matrix @ rows)  # (B, C, n, s, W)
    columns = images[..., start : W - start].unflatten(3, ((W - 2 * start) // s, s))
    columns.copy_(columns @ matrix.t())  # (B, C, H, n, s)
