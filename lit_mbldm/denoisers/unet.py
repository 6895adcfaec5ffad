"""The U-Net denoiser."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbldm.denoisers.backbone import Backbone
from lit_mbldm.denoisers.layers import zero_init


class UNet(Backbone):
    """A U-Net of residual blocks with attention at the bottleneck only.

    The paper's is `base_channels=80, channel_multipliers=(1, 2, 4, 8)`, about 52 M parameters
    (Scribano et al. 2023, section 4.2.1).

    Its last layer, `head`, is a 1×1 convolution: the prediction at a site depends on the
    `features` at that site alone.

    Args:
        in_channels: channels of the latent; as many again take the self-conditioning.
        out_channels: channels of the prediction, `process.output_channels(in_channels)`.
        base_channels: width of the first level.
        channel_multipliers: width that each level widens to, over `base_channels`, after its
            blocks on the way down; every level but the last halves height and width.
        blocks_per_level: residual blocks a level, on the way down and on the way up.
        dropout: probability of dropping a hidden channel's value.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_channels: int = 80,
        channel_multipliers: Sequence[int] = (1, 2, 4, 8),
        blocks_per_level: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            2 * in_channels,
            base_channels,
            channel_multipliers,
            blocks_per_level,
            dropout,
            time_width=base_channels,
            attention=True,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dropout = dropout
        self.head = zero_init(nn.Conv2d(base_channels, out_channels, 1))

    def forward(self, z_t: Tensor, time: Tensor, self_condition: Tensor) -> Tensor:
        """Predict from a noisy latent: `head(features(...))`.

        Args:
            z_t: (B, in_channels, h, w) float.
            time: (B,) t/T in [0, 1].
            self_condition: (B, in_channels, h, w), an earlier estimate of z_0 or zeros.

        Returns:
            (B, out_channels, h, w).
        """
        return self.head(self.features(z_t, time, self_condition))

    def features(self, z_t: Tensor, time: Tensor, self_condition: Tensor) -> Tensor:
        """Everything before `head`, (B, base_channels, h, w); arguments as `forward`."""
        return self.body(torch.cat([z_t, self_condition], dim=1), time)
