"""An autoencoder whose decoder draws images of any size.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, c numbers a position; C features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mbldm.denoisers.autoencoder import conv_encoder, norm_silu, residual_blocks
from lit_mbldm.denoisers.layers import Attention, ResidualBlock

_DRAWN = 2**16  # pixels at once


class ImplicitAutoencoder(nn.Module):
    """A convolutional autoencoder with c numbers a position, for images of any size.

    The decoder's blocks keep the positions' own grid. A pixel of any image is then drawn by a
    perceptron that is told the features of a position, the way to the pixel and its height and
    width; the answers of the four positions around it are weighed by areas (LIIF: Chen et al. 2021,
    arXiv 2012.09161, section 3, without unfolding).

    Source: Kim & Kim 2024, arXiv 2403.10255, section 3.1, whose 256×256 images have 64×64 positions
    of 3 numbers.

    Args:
        channels: numbers c a position.
        patch_size: side s of a position in pixels. The encoder's levels halve the sides, but for
            the last; what is left, the first level takes in blocks of pixels.
        base_channels: width of the first level, and C.
        channel_multipliers: width of each of the encoder's levels, over `base_channels`; the
            decoder has the same in reverse order.
        blocks_per_level: residual blocks a level of the encoder; the decoder has one more.
        hidden_channels: width of the perceptron's layers.
        num_hidden: hidden layers of the perceptron.

    Raises:
        InputError: a patch size that the levels do not divide.
    """

    def __init__(
        self,
        channels: int = 3,
        patch_size: int = 4,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 4),
        blocks_per_level: int = 2,
        hidden_channels: int = 256,
        num_hidden: int = 4,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.patch_size = patch_size
        self.base_channels = base_channels
        self.channel_multipliers = list(channel_multipliers)
        self.blocks_per_level = blocks_per_level
        self.hidden_channels = hidden_channels
        self.num_hidden = num_hidden
        widths = [base_channels * m for m in channel_multipliers]
        self.encoder = conv_encoder(channels, patch_size, widths, blocks_per_level)
        widest = widths[-1]
        decoder: list[nn.Module] = [
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, widest, 3, padding=1),
            ResidualBlock(widest, widest),
            Attention(widest),
            ResidualBlock(widest, widest),
        ]
        for wider, width in pairwise([widest, *widths[::-1]]):
            decoder.append(ResidualBlock(wider, width))
            decoder += residual_blocks(width, blocks_per_level)
        self.decoder = nn.Sequential(*decoder, *norm_silu(widths[0]))
        # the perceptron's first layer, in three: what many pixels share is worked out once
        self.features = nn.Conv2d(widths[0], hidden_channels, 1)
        self.down = nn.Linear(2, hidden_channels, bias=False)
        self.across = nn.Linear(2, hidden_channels, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(num_hidden - 1):
            layers += [nn.Linear(hidden_channels, hidden_channels), nn.ReLU()]
        self.perceptron = nn.Sequential(*layers, nn.Linear(hidden_channels, 3))

    def encode(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) float RGB in [0, 1] into numbers (B, c, h, w), unbounded."""
        numbers: Tensor = self.encoder(2 * images - 1)
        return numbers

    def decode(
        self,
        numbers: Tensor,
        size: tuple[int, int] | None = None,
        extent: tuple[float, float] | None = None,
        window: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Draw images, or a window of them.

        Args:
            numbers: (B, c, h, w), nominal [-1, 1].
            size: (H', W') of the whole images in pixels; None is s pixels a position.
            extent: rows and columns of positions that the images cover, from the first on; None is
                all.
            window: rows and columns of pixels that are drawn; None is all.

        Returns:
            (B, 3, H', W') or the window of it, nominal [0, 1].
        """
        h, w = numbers.shape[2:]
        size = size or (h * self.patch_size, w * self.patch_size)
        extent = extent or (h, w)
        rows, columns = window or (slice(0, size[0]), slice(0, size[1]))
        features = self.features(self.decoder(numbers)).movedim(1, -1)  # (B, h, w, hidden)
        across = _Axis(w, extent[1] / size[1], columns.start, columns.stop)
        strip = max(1, _DRAWN // (len(numbers) * (columns.stop - columns.start)))
        drawn = [
            self._draw(features, _Axis(h, extent[0] / size[0], top, stop), across)
            for top in range(rows.start, rows.stop, strip)
            for stop in [min(top + strip, rows.stop)]
        ]
        return (torch.cat(drawn, dim=1).movedim(-1, 1) + 1) / 2

    def _draw(self, features: Tensor, down: "_Axis", across: "_Axis") -> Tensor:
        """Draw (B, rows, columns, 3), nominal [-1, 1]."""
        drawn = torch.zeros((), device=features.device)
        for y, down_way, down_weight in down.corners(features.device):
            for x, across_way, across_weight in across.corners(features.device):
                way = self.down(down_way)[:, None] + self.across(across_way)
                answer = self.perceptron(features[:, y][:, :, x] + way)
                drawn = drawn + (down_weight[:, None] * across_weight)[..., None] * answer
        return drawn


@dataclass(frozen=True)
class _Axis:
    """Rows, or columns, of pixels that are drawn.

    Attributes:
        positions: of the grid along this axis.
        cell: height, or width, of a pixel in positions.
        start: first pixel that is drawn.
        stop: the pixel after the last one.
    """

    positions: int
    cell: float
    start: int
    stop: int

    def corners(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The positions before the pixels' centres, then those after.

        Yields:
            positions (N,) int64; the ways from them and the pixels' cells (N, 2) float32, in halves
            of a position; weights (N,) float32.
        """
        centres = (torch.arange(self.start, self.stop).double() + 0.5) * self.cell - 0.5
        for corner in (centres.floor(), centres.floor() + 1):
            position = corner.clamp(0, self.positions - 1)
            way = 2 * torch.stack([centres - position, torch.full_like(centres, self.cell)], dim=1)
            weight = 1 - (centres - corner).abs()
            yield position.long().to(device), way.float().to(device), weight.float().to(device)
