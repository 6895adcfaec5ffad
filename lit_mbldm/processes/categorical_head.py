"""Distributions over K codewords: a network's logits in chunks, draws from them, their means.

B samples, S code channels, R outputs a code, F features, h×w positions, b samples of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.processes.randomness import SampleStreams

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

    def chunks(self) -> Iterator[slice]:
        """Split the samples so that one code channel of each chunk is small."""
        B, positions, channels = self.features.shape
        outputs = channels if self.head is None else self.head.out_channels
        limit = _AT_ONCE_CPU if self.features.device.type == "cpu" else _AT_ONCE_GPU
        size = max(1, limit * self.num_codes // (outputs * positions))
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


def codeword_nats(logits: Tensor, numbers: Tensor) -> Tensor:
    """-log P of codewords (b, h, w) int64 under softmax(logits), logits (b·hw, K): (b, hw)."""
    nats = F.cross_entropy(logits, numbers.flatten(), reduction="none")
    return nats.view(len(numbers), -1)


def gumbel_scores(logits: Tensor, temperature: float, streams: SampleStreams) -> Tensor:
    """(logits + Gumbel noise)/τ, whose softmax is a differentiable draw (Jang et al. 2016).

    Of logits (b·n, K), n of each of the b streams.
    """
    positions = len(logits) // len(streams)
    uniform = streams.uniform((positions, logits.shape[1])).view_as(logits)
    scores = logits - uniform.log_().neg_().log_()
    return scores if temperature == 1 else scores / temperature


def draw_categories(logits: Tensor, temperature: float, streams: SampleStreams) -> Tensor:
    """Draw a category from softmax(logits/temperature) at every position by inverse CDF.

    From logits (B, S, h, w, K): (B, S, h, w) int64. Temperature 0 is the argmax. The CDF is summed
    in float64: float32 Gumbel noise biases the tails.
    """
    if temperature == 0:
        return logits.argmax(-1)
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # mps lacks float64
    u = streams.uniform((*logits.shape[1:-1], 1)).to(exact)
    draws = []
    for row, uniform in zip(logits, u, strict=True):
        cdf = (row.to(exact) / temperature).softmax(-1).cumsum(-1)  # (S, h, w, K)
        draws.append((cdf <= uniform * cdf[..., -1:]).sum(-1))
    return torch.stack(draws).clamp_(max=logits.shape[-1] - 1)


def expectation(scores: Tensor, values: Tensor) -> Tensor:
    """Mean of values (K, d) under softmax(scores), scores (n, K): (n, d).

    Faster than a softmax and a product: the weights are normalised only after they are summed.
    """
    weights = (scores - scores.detach().amax(1, keepdim=True)).exp_()
    summed = weights @ torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    return summed[:, :-1] / summed[:, -1:]
