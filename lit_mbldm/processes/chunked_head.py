"""The last layer of a categorical network, run for one code channel of a few samples at a time.

B samples, S code channels, R numbers a code, F features, h×w positions, b samples of a chunk.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

# Numbers computed at once: 4 MiB, which a core's allocator and cache hold; a GPU wants more.
_AT_ONCE_CPU = 2**20
_AT_ONCE_GPU = 2**24


@runtime_checkable
class HeadedDenoiser(Protocol):
    """A denoiser whose last layer is a 1×1 convolution, such as `lit_mbldm.denoisers.UNet`."""

    head: nn.Conv2d

    def features(self, *inputs: Any) -> Tensor:
        """Everything before the last layer, (B, F, h, w)."""


@dataclass(frozen=True)
class ChunkedHead:
    """A network's prediction (B, S·R, h, w), not yet computed.

    Attributes:
        features: (B, hw, F) that the head reads; of a network without a head its prediction.
        num_codes: S.
        head: the network's last layer, if it is known.
    """

    features: Tensor
    num_codes: int
    head: nn.Conv2d | None

    @classmethod
    def of(
        cls, denoiser: Callable[..., Tensor], num_codes: int, call: Callable[..., Tensor]
    ) -> "ChunkedHead":
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
        """Split the samples so that one code channel of each chunk is small."""
        B, positions, channels = self.features.shape
        numbers = channels if self.head is None else self.head.out_channels
        limit = _AT_ONCE_CPU if self.features.device.type == "cpu" else _AT_ONCE_GPU
        size = max(1, limit * self.num_codes // (numbers * positions))
        return (slice(start, min(B, start + size)) for start in range(0, B, size))

    def channel(self, rows: slice, code: int) -> Tensor:
        """Compute one code channel of some samples: (b·hw, R) float32."""
        features = self.features[rows].flatten(0, 1)
        if self.head is None:
            return features.chunk(self.num_codes, dim=1)[code].float()
        weight = self.head.weight.chunk(self.num_codes)[code].flatten(1).t()  # (F, R)
        if self.head.bias is None:
            return (features @ weight).float()
        return torch.addmm(self.head.bias.chunk(self.num_codes)[code], features, weight).float()
