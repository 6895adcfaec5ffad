"""A categorical network's outputs, one code channel of a few samples at a time.

B samples, S code channels, R numbers a code, C features, h×w sites.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.processes.forward import Denoiser

# Outputs that exist at once: 32 MiB in float32, and a few times that in their loss.
MAX_OUTPUTS = 2**23


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
        features: (B, C, h, w) that the head reads; of a network without a head its outputs.
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
        if isinstance(denoiser, HeadedDenoiser):
            return cls(call(denoiser.features), num_codes, denoiser.head)
        return cls(call(denoiser), num_codes, None)

    @property
    def numel(self) -> int:
        """B·S·R·h·w."""
        channels = self.features.shape[1] if self.head is None else self.head.out_channels
        return self.features[:, 0].numel() * channels

    @property
    def are_many(self) -> bool:
        """Whether they must not all exist at once."""
        return self.numel > MAX_OUTPUTS

    def chunks(self) -> Iterator[slice]:
        """Split the samples so that one code channel of each part fits `MAX_OUTPUTS`."""
        B = len(self.features)
        size = max(1, MAX_OUTPUTS * self.num_codes * B // self.numel)
        return (slice(start, start + size) for start in range(0, B, size))

    def channel(self, rows: slice, site: int) -> Tensor:
        """Spell out one code channel of some samples: (b, R, h, w) float32."""
        features = self.features[rows]
        if self.head is None:
            return features.chunk(self.num_codes, dim=1)[site].float()
        weight = self.head.weight.chunk(self.num_codes)[site]
        bias = None if self.head.bias is None else self.head.bias.chunk(self.num_codes)[site]
        return F.conv2d(features, weight, bias).float()
