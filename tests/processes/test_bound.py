"""The variational bound against the entropy of data that is known."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn import functional as F

from lit_mbldm.codecs.bits import to_signs
from lit_mbldm.processes import BernoulliProcess, CategoricalProcess, JointBernoulliProcess
from lit_mbldm.processes.bound import bound
from lit_mbldm.processes.randomness import SampleStreams

# probabilities of eight codewords, or of three bits, which are mostly equal
PRIOR = torch.tensor([0.45, *(6 * [0.1 / 6]), 0.45])
ENTROPY = float(Categorical(PRIOR).entropy())
B, SIDE = 1000, 16


def nats(process: Any, z0: Tensor, network: Any) -> float:
    """The bound of one code, every time taken as often."""
    streams = SampleStreams([(0, i) for i in range(B)])
    t = torch.arange(B) % process.num_timesteps + 1
    return float(bound(process, network, z0, t, streams).mean() / SIDE**2)


def numbers() -> Tensor:
    """As many codes as their probabilities say, (B, h, w)."""
    counts = (PRIOR * B * SIDE**2).round().long()
    counts[-1] += B * SIDE**2 - counts.sum()
    generator = torch.Generator().manual_seed(0)
    every = torch.arange(8).repeat_interleave(counts)
    return every[torch.randperm(len(every), generator=generator)].view(B, SIDE, SIDE)


def logits(z_t: Tensor, *_: object) -> Tensor:
    return PRIOR.log().view(1, 8, 1, 1).expand(len(z_t), 8, *z_t.shape[2:])


@pytest.mark.parametrize("T", [4, 10])
@pytest.mark.parametrize("kind", ["joint", "likelihood", "free logits"])
def test_the_bound_of_a_network_that_knows_all_is_the_entropy(kind: str, T: int) -> None:
    codes, network = numbers(), logits
    process: Any
    if kind == "joint":
        process = JointBernoulliProcess(T)
        process.values = to_signs(torch.arange(8), 3)
        z0 = process.values[codes].movedim(-1, 1)
    else:
        process = CategoricalProcess(T, "cosine", likelihood=kind == "likelihood", codebook_size=8)
        z0 = process.index.to_latent(codes[:, None])
        if kind == "free logits":

            def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
                t, parts = (time * T).round().long(), []
                for row in range(len(z_t)):
                    told = process.evidence_logits(slice(row, row + 1), 0, z_t, t)  # (hw, K)
                    parts.append(told.T.view(8, *z_t.shape[2:]))
                return torch.stack(parts) + logits(z_t)

    assert nats(process, z0, network) == pytest.approx(ENTROPY, abs=0.03)


@pytest.mark.parametrize("target", ["cavity", "flip"])
def test_bits_drawn_one_by_one_need_more_in_few_steps(target: Any) -> None:
    """In one step the entropy of the marginals, in many that of all three together."""
    states = to_signs(torch.arange(8), 3)
    z0 = states[numbers()].movedim(-1, 1)
    up = PRIOR @ (states > 0).float()
    marginal = float(F.binary_cross_entropy(up, up, reduction="sum"))
    assert marginal > ENTROPY + 0.5
    for T, low, high in ((1, marginal, marginal), (40, ENTROPY, ENTROPY + 0.05)):
        process = BernoulliProcess(T, target=target)

        def network(z_t: Tensor, time: Tensor, *_: object, own: Any = process) -> Tensor:
            t = (time * own.num_timesteps).round().long()
            evidence = own.evidence(z_t, t).movedim(1, -1)
            posterior = (evidence @ states.mT / 2 + PRIOR.log()).softmax(-1)
            c = ((posterior @ (states > 0).float()).logit() - evidence).movedim(-1, 1)
            return c if own.target == "cavity" else -z_t * c

        assert low - 0.03 < nats(process, z0, network) < high + 0.03
