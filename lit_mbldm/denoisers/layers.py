"""Building blocks: time embedding; the U-Net's residual block, attention, resampling."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with groups of at least 8 channels, at most 32 of them."""
    groups = math.gcd(channels, min(32, max(channels // 8, 1)))
    return nn.GroupNorm(groups, channels)


def zero_init(layer: Layer) -> Layer:
    """Start a layer at zero, so that its branch begins as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def pad_to_even(x: Tensor) -> Tensor:
    """Repeat the last row or column of (B, C, H, W) where their number is odd."""
    H, W = x.shape[2:]
    return F.pad(x, (0, W % 2, 0, H % 2), mode="replicate") if H % 2 or W % 2 else x


def lay_out(x: Tensor, widest: int) -> Tensor:
    """Put the channels of (B, C, h, w) last, where a network's layers are faster so.

    They are on a CPU in float32 without gradients (docs/speed.md). With
    gradients those of the weights are slower and eat the gain up, and with wide layers the
    reordering of their weights does. The batch has no say, as an image depends on none.

    Args:
        x: input of the network.
        widest: channels of its widest layer.
    """
    pays = x.device.type == "cpu" and x.dtype == torch.float32 and widest <= 256
    if not pays or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return x
    return x.contiguous(memory_format=torch.channels_last)


class TimeEmbedding(nn.Module):
    """Sinusoids of t/T, then two linear layers: (B,) in [0, 1] to (B, width).

    Source: Ho et al. 2020, appendix B, at 1000·t/T.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = 1000 * torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Embed times (B,); an embedded label, (B, width) or (width,), is added before the end."""
        angles = time[:, None].float() * self.frequencies  # type: ignore[operator]
        hidden = self.layers[:-1](torch.cat([angles.sin(), angles.cos()], dim=1))
        return self.layers[-1](hidden if label is None else hidden + label)

    def add_constant(self, label: Tensor) -> None:
        """From now on embed without a label what was embedded with this one, (width,)."""
        self.layers[-2].bias.add_(label)  # type: ignore[operator]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with group norm, scaled and shifted by the time embedding if any.

    Source: Dhariwal & Nichol 2021, section 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = None if time_width is None else nn.Linear(time_width, 2 * out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Map (B, in, h, w) and the embedded time (B, width) or None to (B, out, h, w)."""
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.time is not None:
            scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(hidden)))


class Attention(nn.Module):
    """Self-attention over all positions, added to its input."""

    def __init__(self, channels: int, num_heads: int = 4, head_channels: int = 32) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * num_heads * head_channels, 1)
        self.out = zero_init(nn.Conv2d(num_heads * head_channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        B, _, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(B, 3, self.num_heads, -1, h * w)
        # contiguous, without which the fused kernel is not taken, and memory grows with (hw)²
        q, k, v = qkv.transpose(3, 4).contiguous().unbind(1)  # (B, heads, hw, head_channels)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(2, 3).reshape(B, -1, h, w))


class Downsample(nn.Module):
    """Halve height and width, rounded up: 2×2 positions become channels, then a 1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, ⌈h/2⌉, ⌈w/2⌉)."""
        return self.conv(F.pixel_unshuffle(pad_to_even(x), 2))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a 3×3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
