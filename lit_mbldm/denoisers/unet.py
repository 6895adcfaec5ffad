"""The U-Net denoiser."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import (
    Attention,
    Downsample,
    ResidualBlock,
    TimeEmbedding,
    Upsample,
    group_norm,
    zero_init,
)
from lit_mbldm.errors import InputError


class UNet(nn.Module):
    """A U-Net of residual blocks with attention at the bottleneck only.

    The paper's is `base_channels=80, channel_multipliers=(1, 2, 4, 8)`, about 52 M parameters
    (Scribano et al. 2023, section 4.2.1).

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
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.base_channels = base_channels
        self.channel_multipliers = list(channel_multipliers)
        self.blocks_per_level = blocks_per_level
        self.dropout = dropout
        widths = [base_channels, *(base_channels * m for m in channel_multipliers)]
        levels = list(pairwise(widths))

        def blocks(inputs: int, outputs: int, count: int = blocks_per_level) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(inputs, outputs, base_channels, dropout) for _ in range(count)
            )

        self.time = TimeEmbedding(base_channels)
        self.stem = nn.Conv2d(2 * in_channels, base_channels, 3, padding=1)
        self.down = nn.ModuleList(blocks(width, width) for width, _ in levels)
        self.widen = nn.ModuleList(Downsample(width, wider) for width, wider in levels[:-1])
        self.widen.append(nn.Conv2d(*levels[-1], 3, padding=1))  # the last level stays at its size
        self.middle = blocks(widths[-1], widths[-1], count=2)
        self.attention = Attention(widths[-1])
        self.up = nn.ModuleList(blocks(width + wider, wider) for width, wider in levels[::-1])
        self.narrow = nn.ModuleList(Upsample(wider, width) for width, wider in levels[:0:-1])
        self.narrow.append(nn.Conv2d(*levels[0][::-1], 3, padding=1))
        self.last = blocks(2 * base_channels, base_channels, count=1)
        self.head_norm = group_norm(base_channels)
        self.head = zero_init(nn.Conv2d(base_channels, out_channels, 1))

    def forward(self, z_t: Tensor, time: Tensor, self_condition: Tensor) -> Tensor:
        """Predict from a noisy latent.

        Args:
            z_t: (B, in_channels, h, w) float.
            time: (B,) t/T in [0, 1].
            self_condition: (B, in_channels, h, w), an earlier estimate of z_0 or zeros.

        Returns:
            (B, out_channels, h, w).

        Raises:
            InputError: h or w that cannot be halved often enough.
        """
        factor = 2 ** (len(self.channel_multipliers) - 1)
        if z_t.shape[2] % factor or z_t.shape[3] % factor:
            raise InputError(
                f"A U-Net of {len(self.channel_multipliers)} levels needs latents whose sides are"
                f" multiples of {factor}; this one is {z_t.shape[2]}×{z_t.shape[3]}. Use fewer"
                " channel_multipliers or another image size."
            )
        emb = self.time(time)
        x = self.stem(torch.cat([z_t, self_condition], dim=1))
        skips = [x]
        for blocks, widen in zip(self.down, self.widen, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, emb)
                skips.append(x)
            x = widen(x)
        x = self.middle[1](self.attention(self.middle[0](x, emb)), emb)
        for blocks, narrow in zip(self.up, self.narrow, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], dim=1), emb)
            x = narrow(x)
        x = self.last[0](torch.cat([x, skips.pop()], dim=1), emb)
        return self.head(F.silu(self.head_norm(x)))
