"""Polynomials between pixels: a renderer, and a linear filter found by least squares.

B images, H×W pixels, T×T taps, 12 kernels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import zero_init
from lit_mbldm.denoisers.renderers import Grid

_TERMS = 12
_RIDGE = 1e-2  # of the mean of the diagonal


class PhaseFilter(nn.Module):
    """Corrects an enlarged image by a filter that depends on where a drawn pixel lies.

    The taps, the same for each colour, are polynomials of the way from the nearest pixel and of the
    size of a drawn one. They weigh differences from that pixel, so that flat images stay as they
    are; at first all are zero. Source: in place of classes of neighbourhoods one for each place,
    after Romano, Isidoro, Milanfar 2016 (RAISR, section II).

    Args:
        taps: T, odd.
    """

    def __init__(self, taps: int = 7) -> None:
        super().__init__()
        self.taps = taps
        self.kernels = zero_init(nn.Conv2d(1, _TERMS, taps, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Coefficients (B, 36, H, W) of images (B, 3, H, W)."""
        return self.kernels(self._padded(images)).unflatten(0, (-1, 3)).flatten(1, 2)

    def _padded(self, images: Tensor) -> Tensor:
        """Colours apart, (3B, 1, H + T - 1, W + T - 1)."""
        return F.pad(images.flatten(0, 1)[:, None], (self.taps // 2,) * 4, mode="replicate")

    def moments(self, images: Tensor, missing: Tensor, rows: Grid, columns: Grid) -> Tensor:
        """Sums over drawn pixels, in all colours, that `fit` needs; each image counts as much.

        An image's pixels are divided by their own deviation, as PSNR does: those of large scales
        would outweigh the others.

        Args:
            images: (B, 3, H, W).
            missing: (B, 3, rows, columns), what a correction should be.
            rows: that are drawn.
            columns: that are drawn.

        Returns:
            (12T² + 1, 12T² + 1) float64.
        """
        terms, y, x = polynomials(rows, columns, images.device)  # (12, R, C)
        taps = F.unfold(self._padded(images), self.taps)  # (3B, T², HW)
        taps = taps - taps[:, taps.shape[1] // 2, None]
        taps = taps.unflatten(2, images.shape[2:])[:, :, y][:, :, :, x]  # (3B, T², R, C)
        rows_of = (terms[:, None] * taps[:, None]).flatten(1, 2)  # (3B, 12T², R, C)
        known = torch.cat([rows_of, missing.flatten(0, 1)[:, None]], dim=1)  # (3B, 12T² + 1, R, C)
        deviations = missing.square().mean((1, 2, 3)).clamp_min(1e-6).sqrt().repeat_interleave(3)
        known = (known / deviations.view(-1, 1, 1, 1)).transpose(0, 1).flatten(1)
        return (known @ known.mT).double()

    @torch.no_grad()
    def fit(self, moments: Tensor) -> None:
        """Take the taps of least squares from the sum of `moments`."""
        normal, right = moments[:-1, :-1], moments[:-1, -1]
        ridge = _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
        taps = torch.linalg.solve(normal.cpu() + ridge, right.cpu()).view(_TERMS, 1, -1)
        taps[..., taps.shape[2] // 2] -= taps.sum(2)
        self.kernels.weight.copy_(taps.view_as(self.kernels.weight))


class PolynomialRenderer(nn.Module):
    """Features as coefficients of polynomials, for each colour.

    All work but 36 products a drawn pixel lies at the image's own size.

    Args:
        features: F.
    """

    margin = 0

    def __init__(self, features: int = 48) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(zero_init(nn.Conv2d(features, 3 * _TERMS, 1)))

    def forward(self, features: Tensor, rows: Grid, columns: Grid) -> Tensor:
        """Draw features (B, F, H, W) as (B, 3, rows, columns)."""
        return draw_polynomials(self.layers(features), rows, columns)


def polynomials(rows: Grid, columns: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Polynomials of the way to drawn pixels from the nearest ones, and which these are.

    Of degree two in the way, in [-1, 1], and one in the size of a drawn pixel.

    Returns:
        (12, rows, columns) float32, and the nearest pixels' (rows,) and (columns,) int64.
    """
    (y, dy), (x, dx) = (grid.nearest(grid.positions(0, device)) for grid in (rows, columns))
    dy, dx = torch.broadcast_tensors(2 * dy[:, None], 2 * dx)
    terms = torch.stack([torch.ones_like(dy), dy, dx, dy * dy, dy * dx, dx * dx])
    return torch.cat([terms, math.sqrt(rows.cell * columns.cell) * terms]), y, x


def draw_polynomials(coefficients: Tensor, rows: Grid, columns: Grid) -> Tensor:
    """Draw (B, 3, rows, columns) of coefficients (B, 36, H, W), twelve a colour."""
    terms, y, x = polynomials(rows, columns, coefficients.device)
    return (coefficients[:, :, y][:, :, :, x].unflatten(1, (3, _TERMS)) * terms).sum(2)
