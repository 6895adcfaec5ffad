"""The transformer denoiser, whose tokens are the latent's positions.

B samples, N tokens, h×w positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.base import HeadedNetwork
from lit_mbldm.denoisers.layers import TimeEmbedding, zero_init
from lit_mbldm.errors import InputError


class AdaptiveNorm(nn.Module):
    """Layer norm, scaled and shifted by the embedded time or, if not adaptive, by weights."""

    def __init__(self, width: int, adaptive: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.time = zero_init(nn.Linear(width, 2 * width)) if adaptive else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Normalise x (B, N, width) at embedded times (B, width)."""
        x = self.norm(x)
        if self.time is None:
            return x
        scale, shift = self.time(time)[:, None].chunk(2, dim=2)
        return x * (1 + scale) + shift


class Block(nn.Module):
    """Self-attention and a layer of hidden units, each added to its input after a norm before it.

    An adaptive block scales what it adds by the time too, and adds nothing as it starts.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, adaptive: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = AdaptiveNorm(width, adaptive)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = AdaptiveNorm(width, adaptive)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.gates = zero_init(nn.Linear(width, 2 * width)) if adaptive else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map x (B, N, width) at embedded times (B, width) to the same shape."""
        attended = self.dropout(self.attend(self.norm1(x, time)))
        if self.gates is None:
            x = x + attended
            return x + self.dropout(self.mlp(self.norm2(x, time)))
        gate1, gate2 = self.gates(time)[:, None].chunk(2, dim=2)
        x = x + gate1 * attended
        return x + gate2 * self.dropout(self.mlp(self.norm2(x, time)))

    def attend(self, x: Tensor) -> Tensor:
        """Attention of all tokens (B, N, width) to all."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.transpose(1, 3).unbind(2)  # (B, heads, N, width/heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TokenTransformer(HeadedNetwork):
    """A transformer with a token a position and learned positions.

    The time, and the labels of `set_classes` that are added to it, reach it by adaptive norms that
    start at nothing (adaLN-Zero of Peebles & Xie 2023, section 3.2), or as one more token. The
    binary latent diffusion of Wang et al. 2023 has `time_as_token=True` and otherwise the
    defaults, 171 M parameters; adaptive norms add half as many.

    A grid of other height or width than it was trained at takes positions that are interpolated.

    Args:
        in_channels: channels of the latent; as many again take the self-conditioning. None waits
            for `set_shapes`, which a model calls.
        out_channels: channels of the prediction, or None.
        width: numbers a token.
        depth: blocks of attention and a hidden layer, whose units are 4 · width.
        num_heads: of attention; they share the width.
        dropout: probability of dropping a number that a block adds.
        time_as_token: give the time as a token, instead of adaptive norms.
        grid_size: learned positions a side. None waits for `set_shapes`, too.

    Raises:
        InputError: a width that the heads cannot share.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        width: int = 768,
        depth: int = 24,
        num_heads: int = 12,
        dropout: float = 0.0,
        time_as_token: bool = False,
        grid_size: int | None = None,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise InputError(
                f"Expected a width that is a multiple of num_heads, got {width} and {num_heads}."
            )
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.dropout = dropout
        self.time_as_token = time_as_token
        self.grid_size = grid_size
        self.start(in_channels, out_channels, width)
        if grid_size is not None:
            self.set_grid(grid_size, grid_size)

    def build(self, stem_channels: int) -> None:
        """Make the layers before the head, for an input of so many channels."""
        adaptive = not self.time_as_token
        self.time = TimeEmbedding(self.width)
        self.stem = nn.Linear(stem_channels, self.width)
        self.blocks = nn.ModuleList(
            Block(self.width, self.num_heads, self.dropout, adaptive) for _ in range(self.depth)
        )
        self.head_norm = AdaptiveNorm(self.width, adaptive)

    def set_shapes(
        self,
        shapes: Sequence[Sequence[int]],
        out_channels: Sequence[int],
        map_channels: int = 0,
    ) -> None:
        """Make the layers and positions for a latent, unless they are made; as `HeadedNetwork`."""
        super().set_shapes(shapes, out_channels, map_channels)
        _, height, width = shapes[0]
        self.set_grid(height, width)

    def set_grid(self, height: int, width: int) -> None:
        """Make positions for a latent of this height and width, unless they are made."""
        if not hasattr(self, "positions"):
            self.grid = (height, width)
            # an embedding, not a matrix: Muon leaves it to Adam
            self.positions = nn.Embedding(height * width, self.width)
            nn.init.normal_(self.positions.weight, std=0.02)

    def positions_at(self, h: int, w: int) -> Tensor:
        """Positions of a grid of h×w, (hw, width)."""
        table = self.positions.weight
        if (h, w) == self.grid:  # interpolation has no deterministic backward pass on GPUs
            return table
        image = table.t().unflatten(1, self.grid)[None]  # (1, width, *grid)
        return F.interpolate(image, (h, w), mode="bicubic")[0].flatten(1).t()

    def body(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """Map (B, stem_channels, h, w), and an embedded time, to features (B, width, h, w)."""
        assert emb is not None
        h, w = x.shape[2:]
        x = self.stem(x.flatten(2).transpose(1, 2)) + self.positions_at(h, w)  # (B, hw, width)
        if self.time_as_token:
            x = torch.cat([x, emb[:, None]], dim=1)
        for block in self.blocks:
            x = block(x, emb)
        x = self.head_norm(x, emb)[:, : h * w]
        return x.transpose(1, 2).unflatten(2, (h, w))
