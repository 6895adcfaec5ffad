"""A categorical network's outputs, one code channel of a few samples at a time.

B samples, S code channels, R numbers a code, C features, h×w sites, b samples of a part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lit_mbldm.processes.forward import Denoiser

# Outputs spelt out at once: 4 MiB, which a core's allocator and cache hold; a GPU wants more.
_AT_ONCE_CPU = 2**20
_AT_ONCE_GPU = 2**24


@runtime_checkable
class HeadedDenoiser(Protocol):
    """A denoiser whose last layer is a 1×1 convolution, such as `lit_mbldm.denoisers.UNet`."""

    head: nn.Conv2d

    def features(self, z_t: Tensor, time: Tensor, self_condition: Tensor) -> Tensor:
        """Everything before the last layer, (B, C, h, w)."""


@dataclass(frozen=True)
class Outputs:
    """The outputs (B, S·R, h, w) of a network, not yet spelt out.

    Attributes:
        features: (B, hw, C) that the head reads; of a network without a head its outputs.
        num_codes: S.
        head: the network's last layer, if it is known.
    """

    features: Tensor
    num_codes: int
    head: nn.Conv2d | None

    @classmethod
    def of(
        cls, denoiser: Denoiser, num_codes: int, call: Callable[[Denoiser], Tensor]
    ) -> "Outputs":
        """Run a network, up to its head where it has one.

        Args:
            denoiser: the network.
            num_codes: S.
            call: runs it, or its `features`, on its inputs.
        """
        head = denoiser.head if isinstance(denoiser, HeadedDenoiser) else None
        network = denoiser.features if isinstance(denoiser, HeadedDenoiser) else denoiser
        features = call(network).flatten(2).transpose(1, 2).contiguous()
        return cls(features, num_codes, head)

    def chunks(self) -> Iterator[slice]:
        """Split the samples so that one code channel of each part is small."""
        B, sites, channels = self.features.shape
        numbers = channels if self.head is None else self.head.out_channels
        limit = _AT_ONCE_CPU if self.features.device.type == "cpu" else _AT_ONCE_GPU
        size = max(1, limit * self.num_codes // (numbers * sites))
        return (slice(start, min(B, start + size)) for start in range(0, B, size))

    def channel(self, rows: slice, site: int) -> Tensor:
        """Spell out one code channel of some samples: (b·hw, R) float32."""
        features = self.features[rows].flatten(0, 1)
        if self.head is None:
            return features.chunk(self.num_codes, dim=1)[site].float()
        weight = self.head.weight.chunk(self.num_codes)[site].flatten(1).t()  # (C, R)
        if self.head.bias is None:
            return (features @ weight).float()
        return torch.addmm(self.head.bias.chunk(self.num_codes)[site], features, weight).float()
