"""Renderers: features of an image's pixels drawn at any size.

B images, H×W pixels with F features each, H'×W' pixels drawn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_mbldm.denoisers.layers import zero_init


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

    def positions(self, margin: int, device: torch.device) -> Tensor:
        """Centres of the drawn pixels and of `margin` more at both ends, those in the image.

        Beyond the image its last pixel is repeated. Float64; n is the centre of feature n.
        """
        pixels = torch.arange(self.start - margin, self.stop + margin, device=device)
        pixels = pixels.clamp(0, self.size - 1).double()
        return (2 * pixels + 1) * self.side / (2 * self.size) - 0.5 - self.origin

    def nearest(self, positions: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        """The features nearest to positions shifted by so much, int64, and the way from them.

        The way to the position itself is in the image's pixels, float32.
        """
        last = self.side - 1 - self.origin
        pixels = (positions + shift + 0.5).floor().long().clamp(-self.origin, last)
        return pixels, (positions - pixels).float()


class ConvRenderer(nn.Module):
    """Convolutions on the larger grid: each pixel's nearest feature, the way to it, and its size.

    Source: Chen et al. 2024 (image neural field diffusion), section 3.1, with fewer layers.

    Args:
        features: F.
        width: channels of the layers.
    """

    margin = 2

    def __init__(self, features: int = 16, width: int = 32) -> None:
        super().__init__()
        self.features = features
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv2d(features + 4, width, 3),
            nn.SiLU(),
            nn.Conv2d(width, width, 3),
            nn.SiLU(),
            zero_init(nn.Conv2d(width, 3, 1)),
        )

    def forward(self, features: Tensor, rows: Grid, columns: Grid) -> Tensor:
        """Draw features (B, F, H, W) as (B, 3, rows, columns)."""
        (y, dy), (x, dx) = (
            grid.nearest(grid.positions(self.margin, features.device)) for grid in (rows, columns)
        )
        picked = features[:, :, y][:, :, :, x]
        return self.layers(torch.cat([picked, _places(picked, dy, dx, rows, columns)], dim=1))


class MLPRenderer(nn.Module):
    """A perceptron on each pixel's four nearest features, mixed by how near each is.

    Source: Chen et al. 2021 (LIIF), equations 2 and 4, without feature unfolding.

    Args:
        features: F.
        width: channels of the hidden layers.
        num_layers: hidden layers.
    """

    margin = 1

    def __init__(self, features: int = 16, width: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        self.features = features
        self.width = width
        self.num_layers = num_layers
        layers: list[nn.Module] = []
        for inputs in [features + 4, *[width] * (num_layers - 1)]:
            layers += [nn.Conv2d(inputs, width, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, zero_init(nn.Conv2d(width, 3, 1)))

    def forward(self, features: Tensor, rows: Grid, columns: Grid) -> Tensor:
        """Draw features (B, F, H, W) as (B, 3, rows, columns)."""
        total: Tensor | float = 0.0
        at, to = (grid.positions(0, features.device) for grid in (rows, columns))
        for up in (-0.5, 0.5):
            for left in (-0.5, 0.5):
                (y, dy), (x, dx) = rows.nearest(at, up), columns.nearest(to, left)
                picked = features[:, :, y][:, :, :, x]
                drawn = self.layers(
                    torch.cat([picked, _places(picked, dy, dx, rows, columns)], dim=1)
                )
                near = [
                    (1 - (p - (p + shift + 0.5).floor()).abs()).float()
                    for p, shift in ((at, up), (to, left))
                ]
                total = total + near[0][:, None] * near[1] * drawn
        assert isinstance(total, Tensor)
        return total


def _places(picked: Tensor, dy: Tensor, dx: Tensor, rows: Grid, columns: Grid) -> Tensor:
    """Ways from the features, in [-1, 1] of a pixel's halves, and cells: (B, 4, rows, columns)."""
    R, C = len(dy), len(dx)
    planes = [
        (2 * dy)[:, None].expand(R, C),
        (2 * dx).expand(R, C),
        torch.full((R, C), rows.cell, device=picked.device),
        torch.full((R, C), columns.cell, device=picked.device),
    ]
    return torch.stack(planes).to(picked.dtype).expand(len(picked), 4, R, C)
