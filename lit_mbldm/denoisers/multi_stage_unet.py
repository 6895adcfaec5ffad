"""The U-Net of a process in stages, whose coarse signals enter at inner levels.

B samples, latents (B, C, h, w).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers.layers import ResidualBlock, group_norm, lay_out, zero_init
from lit_mbldm.denoisers.unet import UNet
from lit_mbldm.errors import InputError


class Entry(nn.Module):
    """A coarse signal's own layers before and after the level of a U-Net that it enters at.

    Its prediction starts at zero.
    """

    def __init__(self, level: int, network: UNet, stem_channels: int, out_channels: int) -> None:
        super().__init__()
        width, wider = network.widths[level : level + 2]
        self.level = level
        self.stem = nn.Conv2d(stem_channels, width, 3, padding=1)
        self.narrow = nn.Conv2d(wider, width, 3, padding=1)
        self.last = ResidualBlock(2 * width, width, network.time_width, network.dropout)
        self.head_norm = group_norm(width)
        self.head = zero_init(nn.Conv2d(width, out_channels, 1))


class MultiStageUNet(UNet):
    """A `UNet` that a process in stages enters at the level of its signal's size.

    A signal of half the height and width passes through all levels but the first, and so on. The
    levels and the bottleneck are shared; each shape of signal has a stem, a last block and a head
    of its own, and tells by itself where it enters. Signals of one size and different channels
    enter at the same level. A model calls `set_shapes`.

    Args as for `UNet`. `channel_multipliers` are the nested widths: the outer levels are those of
    the large signals alone. Matryoshka's (Gu et al. 2023, arXiv 2310.15111) are cheap outside and
    wide inside, as are `base_channels=64, channel_multipliers=(2, 4, 4, 8, 12)`.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    entries: Sequence[Entry]

    def set_shapes(
        self,
        shapes: Sequence[Sequence[int]],
        out_channels: Sequence[int],
        map_channels: int = 0,
    ) -> None:
        """Make the layers for signals of several shapes; InputError for one that no level has.

        Arguments as of `HeadedNetwork`.
        """
        self.set_channels(shapes[0][0], out_channels[0], map_channels)
        if self.shapes:
            return
        self.shapes = tuple(tuple(shape) for shape in shapes)
        entries = [
            Entry(self._level(shape), self, 2 * shape[0], outputs)
            for shape, outputs in zip(shapes[1:], out_channels[1:], strict=True)
        ]
        self.entries = nn.ModuleList(entries)  # type: ignore[assignment]

    def check_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise InputError for signals of other shapes than those that it has layers for."""
        if len(self.shapes) > 1 and tuple(map(tuple, shapes)) != self.shapes:
            raise InputError(
                f"A MultiStageUNet draws at the size that it learned, {self.shapes[0][1:]}, not at"
                f" {tuple(shapes[0][1:])}: leave the canvas out, or take images of that size."
            )

    def _level(self, shape: Sequence[int]) -> int:
        """The level of a shape's height and width."""
        _, H, W = self.shapes[0]
        for level in range(len(self.channel_multipliers)):
            if shape[1] * 2**level == H and shape[2] * 2**level == W:
                return level
        raise InputError(
            f"A U-Net of {len(self.channel_multipliers)} levels halves {H}×{W} at most to"
            f" {H >> level}×{W >> level}, and has no level for a stage of {shape[1]}×{shape[2]}."
            " Pool by powers of 2, or give more channel_multipliers."
        )

    def forward(
        self,
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Predict for z_t of any of the shapes; arguments as of `UNet`.

        Raises InputError for another shape.
        """
        shape = tuple(z_t.shape[1:])
        if len(self.shapes) < 2 or shape == self.shapes[0]:
            return super().forward(z_t, time, self_condition, condition)
        if shape not in self.shapes:
            raise InputError(f"Expected z_t of one of the shapes {self.shapes}, got {shape}.")
        entry = self.entries[self.shapes.index(shape) - 1]
        assert self.time is not None
        emb = self.time(time, self.embed_labels(condition, time))
        x = lay_out(torch.cat([z_t, self_condition], dim=1), max(self.widths))
        first = entry.stem(x)
        x = entry.narrow(self.inside(entry.level, first, emb))
        x = entry.last(torch.cat([x, first], dim=1), emb)
        return entry.head(F.silu(entry.head_norm(x)))
