"""The network of an implicit decoder: features of decoded images and codes, drawn at any size.

B images, H×W pixels decoded, h×w positions of D numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import pad_to_even, zero_init
from lit_mbldm.denoisers.polynomial import COEFFICIENTS, Grid, PhaseFilter, draw_polynomials
from lit_mbldm.errors import InputError


class ImplicitNetwork(nn.Module):
    """Corrections of enlarged images, out of decoded images and the numbers behind their codes.

    Blocks of 2×2 pixels, joined by the numbers of their patch, pass through residual blocks without
    norms, after Lim et al. 2017 (EDSR, section 3.1): what lies `margin` pixels away has no part in
    what comes out, so that tiles agree with the whole. That is, for each pixel and colour, the
    coefficients of a polynomial of the way to a drawn pixel and of its size: all work but 36
    products a drawn pixel lies at the image's own size. Those of a linear filter, found by least
    squares, are added. Untrained it changes nothing.

    Args:
        code_channels: numbers D a position; None waits for `set_code_channels`, which the codec
            or the training calls.
        base_channels: width of the blocks.
        num_blocks: residual blocks.
    """

    def __init__(
        self, code_channels: int | None = None, base_channels: int = 48, num_blocks: int = 6
    ) -> None:
        super().__init__()
        self.code_channels = code_channels
        self.base_channels = base_channels
        self.num_blocks = num_blocks
        self.pixels = nn.Conv2d(12, base_channels, 3, padding=1)
        self.blocks = nn.Sequential(*(PlainBlock(base_channels) for _ in range(num_blocks)))
        self.head = zero_init(nn.Conv2d(base_channels, 4 * COEFFICIENTS, 3, padding=1))
        self.filter = PhaseFilter()
        if code_channels is not None:
            self.codes = nn.Conv2d(code_channels, base_channels, 1)

    def set_code_channels(self, code_channels: int) -> None:
        """Make place for so many numbers a position; InputError where there is for others."""
        if self.code_channels not in (None, code_channels):
            raise InputError(
                f"The network has code_channels {self.code_channels}, the codec {code_channels}"
                " numbers a patch: leave the network's out."
            )
        if self.code_channels is None:
            self.code_channels = code_channels
            self.codes = nn.Conv2d(code_channels, self.base_channels, 1)

    @property
    def margin(self) -> int:
        """Pixels around one that its coefficients depend on."""
        return 2 * (2 * self.num_blocks + 3)

    def encode(self, images: Tensor, numbers: Tensor, patch_size: int) -> Tensor:
        """Find coefficients.

        Args:
            images: (B, 3, H, W) float RGB, nominal [0, 1].
            numbers: (B, D, h, w), about unit scale, where h·s ≥ H and w·s ≥ W.
            patch_size: side s of a position in pixels.

        Returns:
            (B, 36, H, W).
        """
        H, W = images.shape[2:]
        x = self.pixels(F.pixel_unshuffle(pad_to_even(2 * images - 1), 2))
        rows, columns = (
            torch.arange(0, 2 * n, 2, device=images.device) // patch_size for n in x.shape[2:]
        )
        x = x + self.codes(numbers)[:, :, rows][:, :, :, columns]
        x = x + self.blocks(x)
        return F.pixel_shuffle(self.head(x), 2)[:, :, :H, :W] + self.filter(images)

    def render(
        self,
        features: Tensor,
        sides: tuple[int, int],
        origin: tuple[int, int],
        size: tuple[int, int],
        rows: slice,
        columns: slice,
    ) -> Tensor:
        """Draw a part of the correction.

        Args:
            features: coefficients (B, 36, …) of a part of the image.
            sides: (H, W) of the image.
            origin: (row, column) of the image where the features begin.
            size: (H', W') to draw at.
            rows: of H' that are drawn.
            columns: of W'.

        Returns:
            (B, 3, rows, columns), nominal ±1.
        """
        grids = (
            Grid(sides[0], size[0], rows.start, rows.stop, origin[0]),
            Grid(sides[1], size[1], columns.start, columns.stop, origin[1]),
        )
        return draw_polynomials(features, *grids)


class PlainBlock(nn.Module):
    """Two 3×3 convolutions added to their input, without norms; at first nothing is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(x)))
