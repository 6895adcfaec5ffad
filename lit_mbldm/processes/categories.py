"""Distributions over K codewords: drawing from them, softly and exactly, and their means."""

import torch
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes.randomness import SampleStreams


def gumbel_scores(logits: Tensor, temperature: float, streams: SampleStreams) -> Tensor:
    """(logits + Gumbel noise)/τ, whose softmax is a differentiable draw (Jang et al. 2016).

    Args:
        logits: (b·n, K) float, n of each of the b streams.
        temperature: τ > 0.
        streams: b of them.

    Returns:
        (b·n, K).
    """
    positions = len(logits) // len(streams)
    uniform = streams.uniform((positions, logits.shape[1])).view_as(logits)
    scores = logits - uniform.log_().neg_().log_()
    return scores if temperature == 1 else scores / temperature


def draw_categories(logits: Tensor, temperature: float, streams: SampleStreams) -> Tensor:
    """Draw a category from softmax(logits/temperature) at every position by inverse CDF.

    The CDF is summed in float64: float32 Gumbel noise biases the tails.

    Args:
        logits: (B, S, h, w, K) float.
        temperature: at least 0; 0 is the argmax.
        streams: B of them.

    Returns:
        (B, S, h, w) int64 in [0, K-1].
    """
    if not temperature >= 0:
        raise InputError(f"The sampling temperature must be at least 0, not {temperature}.")
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
