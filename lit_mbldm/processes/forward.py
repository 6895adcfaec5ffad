"""The Gaussian forward process on a latent, its posterior, and self-conditioning.

B samples, S code channels, h×w sites, K codewords, T timesteps; t = 0 is clean, t = T is noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_mbldm.errors import InputError
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule, alpha_bar

# (z_t (B,S,h,w), t/T (B,), self-conditioning ẑ0 (B,S,h,w)) -> prediction (B,C,h,w)
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Time = int | Tensor


@dataclass(frozen=True)
class Prediction:
    """What a network says of the clean latent.

    Attributes:
        z0: (B, S, h, w) estimate of z_0 in [-1, 1]; the next step's self-conditioning.
        logits: (B, S, h, w, K) over codewords, where the process is categorical.
    """

    z0: Tensor
    logits: Tensor | None = None


class GaussianForward(nn.Module):
    """q(z_t | z_0) = N(√ᾱ_t z_0, 1-ᾱ_t) on a latent z_0 in [-1, 1] (Ho et al. 2020).

    Args:
        num_timesteps: T.
        schedule: of ᾱ.
        min_snr_gamma: the clamp γ of Min-SNR weighting (Hang et al. 2023).
        self_conditioning: feed back an estimate of z_0 (Chen et al. 2022).
        codebook_size: codewords K of the codec.
    """

    # log ᾱ_t, (T+1,): float32 holds it where ᾱ_t itself would lose 1 - ᾱ_t and ratios of them
    log_alpha_bar: Tensor
    # (z_t, prediction, t, s, generator) -> z_s for any s < t
    step: Callable[..., Tensor]
    # (prediction, generator) -> z_0, at the end of the samplers that follow an expected z_0
    finish: Callable[..., Tensor]
    # (prediction) -> the z_0 that those samplers head for before
    expected: Callable[..., Tensor]
    has_temperature: ClassVar[bool] = False  # whether these three take one

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int = 256,
    ) -> None:
        super().__init__()
        if num_timesteps < 1 or min_snr_gamma <= 0 or codebook_size < 2:
            raise InputError(
                "Expected num_timesteps of at least 1, a positive min_snr_gamma and a codebook_size"
                f" of at least 2, got {num_timesteps}, {min_snr_gamma} and {codebook_size}."
            )
        self.num_timesteps = num_timesteps
        self.schedule = schedule
        self.min_snr_gamma = min_snr_gamma
        self.self_conditioning = self_conditioning
        self.codebook_size = codebook_size
        curve = alpha_bar(schedule, num_timesteps).log().float()
        self.register_buffer("log_alpha_bar", curve, persistent=False)

    def output_channels(self, num_codes: int) -> int:
        """Channels the network must return for S code channels."""
        return num_codes

    def snr(self, t: Time) -> Tensor:
        """Signal-to-noise ratio ᾱ_t/(1-ᾱ_t), shaped (B, 1, 1, 1) or (1, 1, 1, 1), float32."""
        signal, noise = self.scales(t)
        return (signal / noise).square()

    def prior(self, shape: Sequence[int], generator: SampleStreams) -> Tensor:
        """Draw z_T ~ N(0, 1): (B, *shape)."""
        return generator.normal(shape)

    def corrupt(self, z0: Tensor, t: Time, generator: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_0) for z_0 (B, S, h, w) and t (B,) in [0, T]."""
        return self.mix(z0, generator.normal(z0.shape[1:]), t)

    def mix(self, z0: Tensor, eps: Tensor, t: Time) -> Tensor:
        """√ᾱ_t z_0 + √(1-ᾱ_t) ε."""
        signal, noise = self.scales(t)
        return signal * z0 + noise * eps

    def scales(self, t: Time) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1-ᾱ_t), shaped (B, 1, 1, 1) or (1, 1, 1, 1), float32."""
        log_a = self._log_alpha_bar_at(t)
        return (log_a / 2).exp(), (-log_a.expm1()).sqrt()

    def posterior(self, z_t: Tensor, z0: Tensor, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """Mean (B, S, h, w) and standard deviation of q(z_s | z_t, z_0), s < t.

        Ho et al. 2020, equation 7, for any pair of times; at s = 0 it is z_0 itself.
        """
        log_a_t, log_a_s = self._log_alpha_bar_at(t), self._log_alpha_bar_at(s)
        beta = -(log_a_t - log_a_s).expm1()  # 1 - ᾱ_t/ᾱ_s
        var_t, var_s = -log_a_t.expm1(), -log_a_s.expm1()  # 1 - ᾱ
        from_z0 = (log_a_s / 2).exp() * beta / var_t
        from_zt = ((log_a_t - log_a_s) / 2).exp() * var_s / var_t
        return from_z0 * z0 + from_zt * z_t, (beta * var_s / var_t).sqrt()

    def draw_posterior(
        self, z_t: Tensor, z0: Tensor, t: Time, s: Time, generator: SampleStreams
    ) -> Tensor:
        """Draw z_s ~ q(z_s | z_t, z_0)."""
        mean, std = self.posterior(z_t, z0, t, s)
        return mean + std * generator.normal(z_t.shape[1:])

    def implied_noise(self, z_t: Tensor, z0: Tensor, t: Time) -> Tensor:
        """The ε of z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε, (B, S, h, w)."""
        signal, noise = self.scales(t)
        return (z_t - signal * z0) / noise

    def implicit_step(
        self, z_t: Tensor, z0: Tensor, t: Time, s: Time, eta: float, generator: SampleStreams
    ) -> Tensor:
        """One step of DDIM (Song et al. 2021, equations 12 and 16), s < t.

        Args:
            z_t: (B, S, h, w).
            z0: (B, S, h, w), an estimate of z_0.
            t: the present time.
            s: the next time.
            eta: 0 adds no noise, 1 as much as the posterior.
            generator: B streams, drawn from only where eta is positive.

        Returns:
            z_s, (B, S, h, w).
        """
        signal, noise = self.scales(s)
        eps = self.implied_noise(z_t, z0, t)
        if eta == 0:
            return signal * z0 + noise * eps
        _, std = self.posterior(z_t, z0, t, s)
        kept = (noise.square() - (eta * std).square()).clamp(min=0).sqrt()
        return signal * z0 + kept * eps + eta * std * generator.normal(z_t.shape[1:])

    def predict(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, self_condition: Tensor | None = None
    ) -> Prediction:
        """Ask the network for z_0.

        Args:
            denoiser: the network.
            z_t: (B, S, h, w).
            t: one time for all, or (B,) int64 in [1, T].
            self_condition: an earlier estimate of z_0, or None.
        """
        raise NotImplementedError

    def estimate(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, self_condition: Tensor | None = None
    ) -> Tensor:
        """Ask the network for z_0 alone, (B, S, h, w). Args as for `predict`."""
        return self.predict(denoiser, z_t, t, self_condition).z0

    def call(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, self_condition: Tensor | None
    ) -> Tensor:
        """Run the network at time t/T; without an earlier estimate it sees zeros."""
        time = torch.as_tensor(t, device=z_t.device).expand(len(z_t)) / self.num_timesteps
        if self_condition is None or not self.self_conditioning:
            self_condition = torch.zeros_like(z_t)
        return denoiser(z_t, time, self_condition)

    def first_estimate(
        self, denoiser: Denoiser, z_t: Tensor, t: Tensor, generator: SampleStreams
    ) -> Tensor | None:
        """Training's self-conditioning: for half of the samples a first pass, else zeros."""
        if not self.self_conditioning:
            return None
        heads = generator.uniform(()) < 0.5  # (B,)
        estimate = torch.zeros_like(z_t)
        if heads.any():
            with torch.no_grad():
                estimate[heads] = self.estimate(denoiser, z_t[heads], t[heads]).to(z_t.dtype)
        return estimate

    def _log_alpha_bar_at(self, t: Time) -> Tensor:
        return self.log_alpha_bar[t].view(-1, 1, 1, 1)
