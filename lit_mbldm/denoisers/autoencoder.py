"""The binary codec's network: images to logits of bits, and bits to images.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, c bits a position.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_mbldm.denoisers.layers import Downsample, ResidualBlock, Upsample, group_norm
from lit_mbldm.errors import InputError


class ConvAutoencoder(nn.Module):
    """A convolutional autoencoder with c bits a position, for images of any size.

    Source: Wang et al. 2023, arXiv 2304.04820, whose 256×256 images have 16×16 positions of 32 to
    128 bits; here without attention.

    Args:
        bits: c, a multiple of 8.
        patch_size: side s of a position in pixels. Levels halve the sides, but for the last; what
            is left, the first level takes in blocks of pixels.
        base_channels: width of the first level.
        channel_multipliers: width of each level, over `base_channels`.
        blocks_per_level: residual blocks a level, in the encoder and in the generator.

    Raises:
        InputError: bits that are no bytes, or a patch size that the levels do not divide.
    """

    def __init__(
        self,
        bits: int = 32,
        patch_size: int = 16,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks_per_level: int = 2,
    ) -> None:
        super().__init__()
        if bits < 8 or bits % 8:
            raise InputError(f"Expected bits as a multiple of 8, whole bytes; got {bits}.")
        self.bits = bits
        self.patch_size = patch_size
        self.base_channels = base_channels
        self.channel_multipliers = list(channel_multipliers)
        self.blocks_per_level = blocks_per_level
        widths = [base_channels * m for m in channel_multipliers]
        self.encoder = conv_encoder(bits, patch_size, widths, blocks_per_level)
        generator: list[nn.Module] = [
            nn.Conv2d(bits, widths[-1], 1),
            *residual_blocks(widths[-1], blocks_per_level),
        ]
        for wider, width in pairwise(widths[::-1]):
            generator += [Upsample(wider, width), *residual_blocks(width, blocks_per_level)]
        block = patch_size // 2 ** (len(widths) - 1)
        self.generator = nn.Sequential(
            *generator,
            *norm_silu(widths[0]),
            nn.Conv2d(widths[0], 3 * block**2, 3, padding=1),
            nn.PixelShuffle(block),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) float RGB in [0, 1] into log-odds of bits (B, c, h, w)."""
        logits: Tensor = self.encoder(2 * images - 1)
        return logits

    def decode(self, bits: Tensor) -> Tensor:
        """Turn bits (B, c, h, w) of ±1, or between, into images (B, 3, H, W), nominal [0, 1]."""
        images: Tensor = self.generator(bits)
        return (images + 1) / 2


def conv_encoder(
    channels: int, patch_size: int, widths: Sequence[int], blocks_per_level: int
) -> nn.Sequential:
    """Make the network from images (B, 3, H, W) in [-1, 1] to numbers (B, c, h, w).

    Args:
        channels: numbers c a position.
        patch_size: side of a position in pixels.
        widths: of the levels, between which sides are halved; what is left of the patch size, the
            first level takes in blocks of pixels.
        blocks_per_level: residual blocks.

    Raises:
        InputError: a patch size that the levels do not divide.
    """
    halved = 2 ** (len(widths) - 1)
    if patch_size < halved or patch_size % halved:
        raise InputError(
            f"{len(widths)} levels need a patch_size that is a multiple of"
            f" {halved}, got {patch_size}. Give as many channel_multipliers as fit."
        )
    block = patch_size // halved
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(block),
        nn.Conv2d(3 * block**2, widths[0], 3, padding=1),
        *residual_blocks(widths[0], blocks_per_level),
    ]
    for width, wider in pairwise(widths):
        layers += [Downsample(width, wider), *residual_blocks(wider, blocks_per_level)]
    return nn.Sequential(*layers, *norm_silu(widths[-1]), nn.Conv2d(widths[-1], channels, 1))


def residual_blocks(width: int, count: int) -> list[nn.Module]:
    """Make so many residual blocks of one width."""
    return [ResidualBlock(width, width) for _ in range(count)]


def norm_silu(width: int) -> list[nn.Module]:
    """Make the norm and nonlinearity before a last convolution."""
    return [group_norm(width), nn.SiLU()]
