"""How many nats a model of codes needs for an image at most: the variational bound.

B samples, T timesteps.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lit_mbldm.processes.base import Condition, Denoiser
from lit_mbldm.processes.randomness import SampleStreams


@runtime_checkable
class DiscreteProcess(Protocol):
    """A process whose network gives the probabilities of codes."""

    num_timesteps: int

    def add_noise(self, z0: Tensor, t: Tensor, streams: SampleStreams) -> Tensor:
        """As of `Process`."""

    def add_more_noise(self, z_s: Tensor, s: Tensor, t: Tensor, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_s), s < t, both (B,)."""

    def prior_nats(self, z0: Tensor) -> Tensor:
        """What z_T tells of z_0, KL(q(z_T | z_0) ‖ p(z_T)), (B,)."""

    def nats_by(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        z_t: Tensor,
        t: Tensor,
        condition: Condition,
        seen: list[tuple[Tensor, Tensor]],
    ) -> list[Tensor]:
        """-log P(z_0), (B,) each, by what the network's cavity at z_t and some evidence say.

        Args:
            denoiser: the network.
            z0: (B, C, h, w).
            z_t: what the network sees.
            t: (B,).
            condition: of the network, or None.
            seen: pairs of a noisy z (B, C, h, w) and its time (B,), each the evidence of one.
        """


def bound(
    process: DiscreteProcess,
    denoiser: Denoiser,
    z0: Tensor,
    t: Tensor,
    streams: SampleStreams,
    condition: Condition = None,
) -> Tensor:
    """The bound on -log p(z_0) in nats a sample, unbiased for t uniform in [1, T]: (B,).

    It is of ancestral sampling in T steps without self-conditioning (Ho et al. 2020, equation 5).
    By Bayes' rule a term, KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) at s = t - 1, is the mean of the
    log-loss of z_0 by the evidence of z_t less that by z_s, the network's cavity being the same.
    At s = 0 the evidence is z_0 itself.

    Args:
        process: of the model.
        denoiser: the network.
        z0: (B, C, h, w).
        t: (B,) int64 in [1, T].
        streams: B of them.
        condition: of the network, or None.
    """
    s = t - 1
    z_s = process.add_noise(z0, s, streams)
    z_t = process.add_more_noise(z_s, s, t, streams)
    by_t, by_s = process.nats_by(denoiser, z0, z_t, t, condition, [(z_t, t), (z_s, s)])
    term = by_t - torch.where(s == 0, 0, by_s)
    return process.num_timesteps * term + process.prior_nats(z0)
