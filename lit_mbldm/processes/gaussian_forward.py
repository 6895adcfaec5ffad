"""Gaussian noise on a latent: the forward process, its posterior, and DDIM's step.

B samples, latents (B, C, h, w), T timesteps; t = 0 is clean, t = T is noise.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Chance, Prediction, Process, Time
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule, alpha_bar

_LAMBDA = (-4.5, 4.0)  # of dpm++'s times, by benchmarks/sampling.py --near 200


class GaussianForward(Process):
    """q(z_t | z_0) = N(√ᾱ_t z_0, 1-ᾱ_t) on a latent z_0 of unit scale (Ho et al. 2020).

    Args as for `GaussianProcess`.
    """

    samplers: ClassVar[tuple[str, ...]] = ("ddpm", "ddim", "dpm++")
    # log ᾱ_t, (T+1,): float32 holds it where ᾱ_t itself would lose 1 - ᾱ_t and ratios of them
    log_alpha_bar: Tensor

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int | None = None,
    ) -> None:
        super().__init__(num_timesteps, self_conditioning)
        if min_snr_gamma <= 0:
            raise InputError(f"Expected a positive min_snr_gamma, got {min_snr_gamma}.")
        self.schedule = schedule
        self.min_snr_gamma = min_snr_gamma
        self.codebook_size = codebook_size
        curve = alpha_bar(schedule, num_timesteps).log().float()
        self.register_buffer("log_alpha_bar", curve, persistent=False)

    def use(self, codec: ImageCodec) -> None:
        """Refuse a codec with another number of codewords than `codebook_size`."""
        if self.codebook_size not in (None, codec.codebook_size):
            raise InputError(
                f"The process has codebook_size {self.codebook_size}, the codec"
                f" {codec.codebook_size}: leave the process's out."
            )

    def multiply_snr(self, factor: float) -> None:
        """Multiply the signal-to-noise ratio at all times."""
        log_a = self.log_alpha_bar.double()
        log_snr = log_a - (-log_a.expm1()).log()
        self.log_alpha_bar.copy_(F.logsigmoid(log_snr + math.log(factor)))

    def alpha_sigma(self, t: Time) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1-ᾱ_t), shaped (B, 1, 1, 1) or (1, 1, 1, 1), float32."""
        log_a = self._log_alpha_bar_at(t)
        return (log_a / 2).exp(), (-log_a.expm1()).sqrt()

    def snr(self, t: Time) -> Tensor:
        """Signal-to-noise ratio ᾱ_t/(1-ᾱ_t), shaped (B, 1, 1, 1) or (1, 1, 1, 1), float32."""
        alpha, sigma = self.alpha_sigma(t)
        return (alpha / sigma).square()

    def clamped_snr(self, t: Time) -> Tensor:
        """min(SNR, γ), (B,) (Hang et al. 2023, section 3.4)."""
        return self.snr(t).flatten().clamp(max=self.min_snr_gamma)

    def time_grid(self, steps: int, sampler: str = "ddpm") -> list[int]:
        """Times T = t_0 > t_1 > … > 0 of a sampler: evenly spaced, of dpm++ even in λ.

        Its steps are of second order in λ = log SNR / 2 (Lu et al. 2022, section 4), of which the
        range counts where an image forms. The last step, to λ = ∞, counts as one of the others.
        """
        even = super().time_grid(steps, sampler)
        if sampler != "dpm++":
            return even
        log_a = self.log_alpha_bar[1:].cpu().double()
        half_log_snr = (log_a - (-log_a.expm1()).log()) / 2  # (T,), at t = 1 to T
        low, high = half_log_snr[-1].clamp(min=_LAMBDA[0]), half_log_snr[0].clamp(max=_LAMBDA[1])
        aims = torch.linspace(float(low), float(high), steps + 1, dtype=torch.float64)[1:-1]
        nearest = (half_log_snr - aims[:, None]).abs().argmin(1) + 1
        times = even[:1]
        for left, t in zip(range(steps - 1, 0, -1), nearest.tolist(), strict=True):
            times.append(max(left, min(t, times[-1] - 1)))
        return [*times, 0]

    def prior(self, shape: Sequence[int], streams: SampleStreams) -> Tensor:
        """Draw z_T ~ N(0, 1): (B, *shape)."""
        return streams.normal(shape)

    def add_noise(self, z0: Tensor, t: Time, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_0)."""
        return self.mix(z0, streams.normal(z0.shape[1:]), t)

    def add_more_noise(self, z_s: Tensor, s: Tensor, t: Tensor, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_s), s < t, both (B,)."""
        log_a = self._log_alpha_bar_at(t) - self._log_alpha_bar_at(s)
        noise = (-log_a.expm1()).sqrt() * streams.normal(z_s.shape[1:])
        return (log_a / 2).exp() * z_s + noise

    def prior_nats(self, z0: Tensor) -> Tensor:
        """What z_T tells of z_0, KL(q(z_T | z_0) ‖ N(0, 1)), (B,)."""
        log_a = self._log_alpha_bar_at(self.num_timesteps)
        nats = (log_a.exp() * (z0.square() - 1) - (-log_a.exp()).log1p()) / 2
        return nats.flatten(1).sum(1)

    def mix(self, z0: Tensor, eps: Tensor, t: Time) -> Tensor:
        """√ᾱ_t z_0 + √(1-ᾱ_t) ε."""
        alpha, sigma = self.alpha_sigma(t)
        return alpha * z0 + sigma * eps

    def implied_noise(self, z_t: Tensor, z0: Tensor, t: Time) -> Tensor:
        """The ε of z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε, (B, C, h, w)."""
        alpha, sigma = self.alpha_sigma(t)
        return (z_t - alpha * z0) / sigma

    def posterior(self, z_t: Tensor, z0: Tensor, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """Mean (B, C, h, w) and standard deviation of q(z_s | z_t, z_0), s < t.

        Ho et al. 2020, equation 7, for any pair of times; at s = 0 it is z_0 itself.
        """
        log_a_t, log_a_s = self._log_alpha_bar_at(t), self._log_alpha_bar_at(s)
        beta = -(log_a_t - log_a_s).expm1()  # 1 - ᾱ_t/ᾱ_s
        var_t, var_s = -log_a_t.expm1(), -log_a_s.expm1()  # 1 - ᾱ
        from_z0 = (log_a_s / 2).exp() * beta / var_t
        from_zt = ((log_a_t - log_a_s) / 2).exp() * var_s / var_t
        return from_z0 * z0 + from_zt * z_t, (beta * var_s / var_t).sqrt()

    def ddim_step(
        self, z_t: Tensor, z0: Tensor, t: Time, s: Time, streams: SampleStreams, eta: float = 0.0
    ) -> Tensor:
        """z_s, s < t, by DDIM from an estimate of z_0 (Song et al. 2021, equations 12 and 16).

        η = 0 adds no noise, 1 as much as the posterior.
        """
        alpha, sigma = self.alpha_sigma(s)
        eps = self.implied_noise(z_t, z0, t)
        if eta == 0:
            return alpha * z0 + sigma * eps
        _, std = self.posterior(z_t, z0, t, s)
        kept = (sigma.square() - (eta * std).square()).clamp(min=0).sqrt()
        return alpha * z0 + kept * eps + eta * std * streams.normal(z_t.shape[1:])

    def expected(self, prediction: Prediction, temperature: float = 1.0) -> Tensor:
        """The z_0 (B, C, h, w) that DDIM and DPM-Solver++ head for."""
        return prediction.z0

    def finish(self, prediction: Prediction, chance: Chance) -> Tensor:
        """The z_0 (B, C, h, w) of the last step."""
        return prediction.z0

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s ~ q(z_s | z_t, z_0) for the z_0 of `finish`, which it is at s = 0."""
        mean, std = self.posterior(z_t, self.finish(prediction, chance), t, s)
        return mean + std * chance.streams.normal(z_t.shape[1:])

    def ddim(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s by DDIM along the expected z_0; z_0 of `finish` at s = 0."""
        if s == 0:
            return self.finish(prediction, chance)
        z0 = self.expected(prediction, chance.temperature)
        return self.ddim_step(z_t, z0, t, s, chance.streams, chance.eta)

    def _log_alpha_bar_at(self, t: Time) -> Tensor:
        return self.log_alpha_bar[t].view(-1, 1, 1, 1)
