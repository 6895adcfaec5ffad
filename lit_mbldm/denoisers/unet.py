"""The U-Net denoiser."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbldm.denoisers.backbone import Backbone
from lit_mbldm.denoisers.layers import zero_init
from lit_mbldm.errors import InputError


class UNet(Backbone):
    """A U-Net of residual blocks with attention at the bottleneck only.

    The paper's is `base_channels=80, channel_multipliers=(1, 2, 4, 8)`, about 52 M parameters
    (Scribano et al. 2023, section 4.2.1).

    Its last layer, `head`, is a 1×1 convolution: the prediction at a position depends on the
    `features` at that position alone.

    Args:
        in_channels: channels of the latent; as many again take the self-conditioning. None waits
            for `set_channels`, which a model calls.
        out_channels: channels of the prediction, or None.
        base_channels: width of the first level.
        channel_multipliers: width that each level widens to, over `base_channels`, after its
            blocks on the way down; every level but the last halves height and width.
        blocks_per_level: residual blocks a level, on the way down and on the way up.
        dropout: probability of dropping a hidden channel's value.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        base_channels: int = 80,
        channel_multipliers: Sequence[int] = (1, 2, 4, 8),
        blocks_per_level: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            base_channels,
            channel_multipliers,
            blocks_per_level,
            dropout,
            time_width=base_channels,
            attention=True,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        if in_channels is not None and out_channels is not None:
            self.set_channels(in_channels, out_channels)

    def set_channels(self, in_channels: int, out_channels: int) -> None:
        """Make the layers for a latent and a prediction of so many channels, unless they are made.

        Raises:
            InputError: other channels than the constructor was told.
        """
        for name, needed in (("in_channels", in_channels), ("out_channels", out_channels)):
            told = getattr(self, name)
            if told not in (None, needed):
                raise InputError(
                    f"The model needs a denoiser with {name}: {needed}, got {told}. Leave {name}"
                    " out: it follows from latent and process."
                )
        if not hasattr(self, "head"):
            self.build(2 * in_channels)
            self.head = zero_init(nn.Conv2d(self.base_channels, out_channels, 1))

    def forward(
        self,
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy latent: `head(features(...))`.

        Args:
            z_t: (B, in_channels, h, w) float.
            time: (B,) t/T in [0, 1].
            self_condition: (B, in_channels, h, w), an earlier estimate of z_0 or zeros.
            condition: None; this network takes no condition.

        Returns:
            (B, out_channels, h, w).
        """
        return self.head(self.features(z_t, time, self_condition, condition))

    def features(
        self,
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Everything before `head`, (B, base_channels, h, w); arguments as `forward`."""
        return self.body(torch.cat([z_t, self_condition], dim=1), time)
