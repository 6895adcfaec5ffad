"""The refiner's network."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import pad_to_even, zero_init
from lit_mbldm.denoisers.unet import Backbone


class RefinerUNet(Backbone):
    """A convolutional U-Net that adds a correction to an image; untrained it changes nothing.

    Args as for `UNet`. Source: Scribano et al. 2023, section 4.2.2, where it has about 1.7 M
    parameters as well.
    """

    def __init__(
        self,
        base_channels: int = 32,
        channel_multipliers: Sequence[int] = (1, 3, 4),
        blocks_per_level: int = 1,
    ) -> None:
        channels = 3 * 2**2  # of 2×2 pixels
        super().__init__(base_channels, channel_multipliers, blocks_per_level)
        self.build(channels)
        self.head = zero_init(nn.Conv2d(base_channels, channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Improve images (B, 3, H, W) float RGB in [0, 1]; of the same dtype, not clipped."""
        H, W = images.shape[2:]
        blocks = F.pixel_unshuffle(pad_to_even(2 * images - 1), 2)
        correction = F.pixel_shuffle(self.head(self.body(blocks)), 2)[:, :, :H, :W]
        return images + correction.to(images.dtype)
