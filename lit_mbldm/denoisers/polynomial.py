"""Polynomials between pixels: coefficients drawn at any size, and a filter by least squares.

B images, H×W pixels, T×T taps, 12 terms a colour.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import zero_init

_TERMS = 12
COEFFICIENTS = 3 * _TERMS  # a pixel
_RIDGE = 1e-2  # of the mean of the diagonal


@dataclass(frozen=True)
class Grid:
    """Rows, or columns, of a larger image in the coordinates of the image that has features.

    Attributes:
        side: pixels of the image along this axis.
        size: pixels of the larger image.
        start: first of its pixels that are drawn.
        stop: the pixel after the last one.
        origin: pixel of the image where the features begin.
    """

    side: int
    size: int
    start: int
    stop: int
    origin: int = 0

    @property
    def cell(self) -> float:
        """Height, or width, of a drawn pixel in the image's."""
        return self.side / self.size

    def positions(self) -> Tensor:
        """Centres of the drawn pixels, float64, on the CPU; n is the centre of feature n."""
        pixels = torch.arange(self.start, self.stop).double()
        return (2 * pixels + 1) * self.side / (2 * self.size) - 0.5 - self.origin

    def nearest(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The features nearest to positions, int64, and the way from them to these.

        The way is in the image's pixels, float32.
        """
        last = self.side - 1 - self.origin
        pixels = (positions + 0.5).floor().long().clamp(-self.origin, last)
        return pixels, (positions - pixels).float()


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
        return (known @ known.mT).cpu().double()

    @torch.no_grad()
    def fit(self, moments: Tensor) -> None:
        """Take the taps of least squares from the sum of `moments`."""
        normal, right = moments[:-1, :-1], moments[:-1, -1]
        ridge = _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
        taps = torch.linalg.solve(normal.cpu() + ridge, right.cpu()).view(_TERMS, 1, -1)
        taps[..., taps.shape[2] // 2] -= taps.sum(2)
        self.kernels.weight.copy_(taps.view_as(self.kernels.weight))


def polynomials(rows: Grid, columns: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Polynomials of the way to drawn pixels from the nearest ones, and which these are.

    Of degree two in the way, in [-1, 1], and one in the size of a drawn pixel.

    Returns:
        (12, rows, columns) float32, and the nearest pixels' (rows,) and (columns,) int64.
    """
    found = (grid.nearest(grid.positions()) for grid in (rows, columns))
    (y, dy), (x, dx) = ((pixels.to(device), way.to(device)) for pixels, way in found)
    dy, dx = torch.broadcast_tensors(2 * dy[:, None], 2 * dx)
    terms = torch.stack([torch.ones_like(dy), dy, dx, dy * dy, dy * dx, dx * dx])
    return torch.cat([terms, math.sqrt(rows.cell * columns.cell) * terms]), y, x


def draw_polynomials(coefficients: Tensor, rows: Grid, columns: Grid) -> Tensor:
    """Draw (B, 3, rows, columns) of coefficients (B, 36, H, W), twelve a colour."""
    terms, y, x = polynomials(rows, columns, coefficients.device)
    picked = coefficients.index_select(2, y).index_select(3, x)  # (B, 36, rows, columns)
    return (picked.unflatten(1, (3, _TERMS)) * terms).sum(2)
