"""The learned codec's network: images to logits of bits, and bits to images.

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
        halved = 2 ** (len(channel_multipliers) - 1)
        if bits < 8 or bits % 8:
            raise InputError(f"Expected bits as a multiple of 8, whole bytes; got {bits}.")
        if patch_size < halved or patch_size % halved:
            raise InputError(
                f"{len(channel_multipliers)} levels need a patch_size that is a multiple of"
                f" {halved}, got {patch_size}. Give as many channel_multipliers as fit."
            )
        self.bits = bits
        self.patch_size = patch_size
        self.base_channels = base_channels
        self.channel_multipliers = list(channel_multipliers)
        self.blocks_per_level = blocks_per_level
        block = patch_size // halved
        pixels = 3 * block**2
        widths = [base_channels * m for m in channel_multipliers]

        def blocks(width: int) -> list[nn.Module]:
            return [ResidualBlock(width, width) for _ in range(blocks_per_level)]

        def end(width: int) -> list[nn.Module]:
            return [group_norm(width), nn.SiLU()]

        encoder: list[nn.Module] = [
            nn.PixelUnshuffle(block),
            nn.Conv2d(pixels, widths[0], 3, padding=1),
            *blocks(widths[0]),
        ]
        for width, wider in pairwise(widths):
            encoder += [Downsample(width, wider), *blocks(wider)]
        self.encoder = nn.Sequential(*encoder, *end(widths[-1]), nn.Conv2d(widths[-1], bits, 1))
        generator: list[nn.Module] = [nn.Conv2d(bits, widths[-1], 1), *blocks(widths[-1])]
        for wider, width in pairwise(widths[::-1]):
            generator += [Upsample(wider, width), *blocks(width)]
        self.generator = nn.Sequential(
            *generator,
            *end(widths[0]),
            nn.Conv2d(widths[0], pixels, 3, padding=1),
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
