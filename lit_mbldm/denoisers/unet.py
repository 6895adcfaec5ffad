"""The U-Net denoiser, and the body that it shares with the refiner's network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.base import HeadedNetwork
from lit_mbldm.denoisers.layers import (
    Attention,
    Downsample,
    ResidualBlock,
    TimeEmbedding,
    Upsample,
    group_norm,
    lay_out,
)


class Backbone(nn.Module):
    """A U-Net of residual blocks without its head; the base of the denoiser and the refiner.

    `build` makes its layers. Args as for `UNet`; `time_width` is of the time embedding that every
    block takes, if any, and `attention` is over all positions at the bottleneck.
    """

    time: nn.Module | None

    def __init__(
        self,
        base_channels: int,
        channel_multipliers: Sequence[int],
        blocks_per_level: int,
        dropout: float = 0.0,
        time_width: int | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.base_channels = base_channels
        self.channel_multipliers = list(channel_multipliers)
        self.blocks_per_level = blocks_per_level
        self.dropout = dropout
        self.time_width = time_width
        self.has_attention = attention

    @property
    def widths(self) -> list[int]:
        """Width that each level has, and after them that of the bottleneck."""
        return [self.base_channels * m for m in (1, *self.channel_multipliers)]

    def build(self, stem_channels: int) -> None:
        """Make the layers, for an input of so many channels."""
        base_channels, time_width = self.base_channels, self.time_width
        widths = self.widths
        levels = list(pairwise(widths))

        def blocks(inputs: int, outputs: int, count: int = self.blocks_per_level) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(inputs, outputs, time_width, self.dropout) for _ in range(count)
            )

        self.time = None if time_width is None else TimeEmbedding(time_width)
        self.stem = nn.Conv2d(stem_channels, base_channels, 3, padding=1)
        self.down = nn.ModuleList(blocks(width, width) for width, _ in levels)
        self.widen = nn.ModuleList(Downsample(width, wider) for width, wider in levels[:-1])
        self.widen.append(nn.Conv2d(*levels[-1], 3, padding=1))  # the last level stays at its size
        self.middle = blocks(widths[-1], widths[-1], count=2)
        self.attention = Attention(widths[-1]) if self.has_attention else nn.Identity()
        self.up = nn.ModuleList(blocks(width + wider, wider) for width, wider in levels[::-1])
        self.narrow = nn.ModuleList(Upsample(wider, width) for width, wider in levels[:0:-1])
        self.narrow.append(nn.Conv2d(*levels[0][::-1], 3, padding=1))
        self.last = blocks(2 * base_channels, base_channels, count=1)
        self.head_norm = group_norm(base_channels)

    def body(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map (B, stem_channels, h, w), and an embedded time, to features (B, base_channels, h, w).

        They come after the last norm and SiLU.
        """
        first = self.stem(lay_out(x, max(self.widths)))
        x = self.narrow[-1](self.inside(0, first, emb))
        x = self.last[0](torch.cat([x, first], dim=1), emb)
        return F.silu(self.head_norm(x))

    def inside(self, level: int, x: Tensor, emb: Tensor | None) -> Tensor:
        """Pass x, (B, width, h, w) of a level, through it and all below it: (B, wider, h, w)."""
        if level == len(self.down):
            return self.middle[1](self.attention(self.middle[0](x, emb)), emb)
        skips = []
        for block in self.down[level]:  # type: ignore[attr-defined]
            x = block(x, emb)
            skips.append(x)
        h, w = x.shape[2:]
        x = self.inside(level + 1, self.widen[level](x), emb)
        if level < len(self.down) - 1:
            x = self.narrow[-2 - level](x)[:, :, :h, :w]  # odd sides were rounded up
        for block in self.up[-1 - level]:  # type: ignore[attr-defined]
            x = block(torch.cat([x, skips.pop()], dim=1), emb)
        return x


class UNet(Backbone, HeadedNetwork):
    """A U-Net of residual blocks with attention at the bottleneck only.

    The paper's is `base_channels=80, channel_multipliers=(1, 2, 4, 8)`, about 52 M parameters
    (Scribano et al. 2023, section 4.2.1).

    After `set_classes` it takes labels, whose embeddings are added to the time's (Dhariwal & Nichol
    2021, section 3).

    Args:
        in_channels: channels of the latent; as many again take the self-conditioning. None waits
            for `set_shapes`, which a model calls.
        out_channels: channels of the prediction, or None.
        base_channels: width of the first level.
        channel_multipliers: width that each level widens to, over `base_channels`, after its
            blocks on the way down; every level but the last halves height and width, an odd side
            rounded up.
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
        self.start(in_channels, out_channels, base_channels)
