"""Bits that flip on the way forward, and a network that says of each what it was.

B samples, latents (B, C, h, w) of ±1, T timesteps; t = 0 is clean, at t = T a bit is a fair coin.
Source: binary latent diffusion, Wang et al. 2023, arXiv 2304.04820.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.errors import check_choice, check_positive
from lit_mbldm.processes.base import Chance, Condition, Denoiser, Prediction, Process, Time
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule, survival

Target = Literal["cavity", "flip"]
Posterior = Literal["exact", "plug_in"]


def reverse_log_odds(c: Tensor, z_t: Tensor, k_t: float, k_s: float) -> Tensor:
    """Log-odds that z_s = 1, for s < t, from a bit z_t = ±1 and what is known of z_0 beside it.

    It sums q(z_s | z_t, z_0) over both z_0. With κ = k_t/k_s and m = k_s tanh(c/2),

        P(z_s = 1) ∝ (1 + m)(1 + κ z_t),  P(z_s = -1) ∝ (1 - m)(1 - κ z_t).

    Args:
        c: cavity log-odds that z_0 = 1, those without the evidence of z_t.
        z_t: ±1, of the same shape.
        k_t: correlation of z_t with z_0.
        k_s: of z_s with z_0, larger.
    """
    m = k_s * (c / 2).tanh()
    return m.log1p() - (-m).log1p() + 2 * math.atanh(k_t / k_s) * z_t


def draw_signs(log_odds: Tensor, streams: SampleStreams) -> Tensor:
    """Draw 1 or -1 by the log-odds (B, C, h, w) of 1, float32."""
    ones = streams.uniform(log_odds.shape[1:]) < log_odds.sigmoid()
    return ones.float() * 2 - 1


class BernoulliForward(Process):
    """q(z_t = z_0) = (1 + k_t)/2 on bits z = ±1.

    Args:
        num_timesteps: T.
        schedule: of k.
        self_conditioning: feed back the expected z_0.
        min_snr_gamma: γ of weights min(SNR, γ) of the loss at a time, over their mean (after Hang
            et al. 2023), where SNR = k²/(1 - k²); None weighs all times the same.
    """

    has_temperature = True
    loss_weight: Tensor  # (T+1,)
    log_odds: Tensor  # l_t = 2 atanh k_t that z_t = z_0, (T+1,)

    def __init__(
        self,
        num_timesteps: int = 256,
        schedule: Schedule = "linear",
        self_conditioning: bool = True,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__(num_timesteps, self_conditioning)
        self.schedule = schedule
        self.min_snr_gamma = min_snr_gamma
        # no buffer: the sampler reads its numbers one by one, and some devices lack float64
        self.survival = survival(schedule, num_timesteps)
        self.register_buffer("log_odds", 2 * self.survival.atanh().float(), persistent=False)
        weights = torch.ones_like(self.survival)
        if min_snr_gamma is not None:
            check_positive(min_snr_gamma=min_snr_gamma)
            power = self.survival.square()
            weights = (power / (1 - power)).clamp_max(min_snr_gamma)
            weights = weights / weights[1:].mean()
        self.register_buffer("loss_weight", weights.float(), persistent=False)

    def prior(self, shape: Sequence[int], streams: SampleStreams) -> Tensor:
        """Draw z_T, fair coins: (B, *shape)."""
        return draw_signs(torch.zeros(len(streams), *shape, device=streams.device), streams)

    def add_noise(self, z0: Tensor, t: Time, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_0)."""
        return draw_signs(self.evidence(z0, t), streams)

    def add_more_noise(self, z_s: Tensor, s: Tensor, t: Tensor, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_s), s < t, both (B,)."""
        kept = 2 * (self.survival[t.cpu()] / self.survival[s.cpu()]).atanh().float()
        return draw_signs(kept.to(z_s.device).view(-1, 1, 1, 1) * z_s, streams)

    def prior_nats(self, z0: Tensor) -> Tensor:
        """What z_T tells of z_0: nothing, (B,)."""
        return z0.new_zeros(len(z0))

    def evidence(self, z_t: Tensor, t: Time) -> Tensor:
        """Log-odds l_t z_t that z_0 = 1, by the bit z_t alone."""
        return self.log_odds[t].view(-1, 1, 1, 1) * z_t

    def survival_at(self, t: int) -> float:
        """k_t."""
        return float(self.survival[t])


class BernoulliProcess(BernoulliForward):
    """Bits forward, independent bits backward.

    The network returns, for each bit, the *cavity* log-odds c of z_0: what its surroundings say.
    With the evidence of the noisy bit they are L = c + l_t z_t, the estimate of z_0 is tanh(L/2),
    and the loss the mean of -log P(z_0) = softplus(-z_0 L), a proper scoring rule.

    Two options are for comparison with the published system. `target: flip` has the network tell
    whether z_t ≠ z_0 and weighs both cases equally: weighted so, the flip's log-odds are the
    cavity's again, but for a sign. `posterior: plug_in` puts the whole estimate, which has seen
    z_t, in the place of z_0 in q(z_s | z_t, z_0), which counts z_t twice.

    Args:
        num_timesteps: T.
        schedule: of k.
        self_conditioning: feed back the expected z_0.
        target: what the network returns, `cavity` or `flip`.
        posterior: how z_s is drawn, `exact` or `plug_in`.
        min_snr_gamma: as of `BernoulliForward`.

    Raises:
        InputError: another target or posterior.
    """

    def __init__(
        self,
        num_timesteps: int = 256,
        schedule: Schedule = "linear",
        self_conditioning: bool = True,
        target: Target = "cavity",
        posterior: Posterior = "exact",
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__(num_timesteps, schedule, self_conditioning, min_snr_gamma)
        check_choice(Target, target=target)
        check_choice(Posterior, posterior=posterior)
        self.target = target
        self.posterior = posterior

    def read(self, output: Tensor, z_t: Tensor, t: Time) -> Prediction:
        """The network's cavity log-odds c, (B, C, h, w), and the expected z_0."""
        c = output if self.target == "cavity" else -z_t * output
        return Prediction(((c + self.evidence(z_t, t)) / 2).tanh(), c)

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Weighted mean of -log P(z_0) in nats a bit, (B,) float32, or of flips in equal shares."""
        z_t = self.add_noise(z0, t, streams)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        c = self.predict(denoiser, z_t, t, estimate, condition).logits
        assert c is not None
        if self.target == "cavity":
            nats = F.softplus(-z0 * (c + self.evidence(z_t, t)))
            return self.loss_weight[t] * nats.flatten(1).mean(1)
        flips = z_t != z0
        share = flips.flatten(1).float().mean(1).view(-1, 1, 1, 1)
        weight = torch.where(flips, 1 - share, share)
        return self.loss_weight[t] * (weight * F.softplus(-z0 * c)).flatten(1).mean(1)

    def nats_by(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        z_t: Tensor,
        t: Tensor,
        condition: Condition,
        seen: list[tuple[Tensor, Tensor]],
    ) -> list[Tensor]:
        """As of `lit_mbldm.processes.bound.DiscreteProcess`."""
        c = self.predict(denoiser, z_t, t, None, condition).logits
        assert c is not None
        log_odds = (c + self.evidence(*one) for one in seen)
        return [F.softplus(-z0 * L).flatten(1).sum(1) for L in log_odds]

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s ~ p(z_s | z_t), any s < t; the temperature divides c, and 0 is its limit."""
        assert prediction.logits is not None
        c = prediction.logits / max(chance.temperature, 1e-9)
        if self.posterior == "plug_in" and s > 0:  # at s = 0 the estimate itself is drawn
            c = c + self.evidence(z_t, t)
        k_t, k_s = self.survival_at(t), self.survival_at(s)
        return draw_signs(reverse_log_odds(c, z_t, k_t, k_s), chance.streams)
