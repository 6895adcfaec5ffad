"""Diffusion in stages: the signal gets coarser towards the noise, and smaller where pooled.

B samples, latents (B, C, h, w), T timesteps, K+1 stages: stage k has the times in
(starts[k], starts[k+1]], of which the last is T. Source: f-DM, Gu et al. 2022, arXiv 2210.04955.
"""

import operator
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Chance, Condition, Denoiser, Prediction, Process, Time
from lit_mbldm.processes.gaussian import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule
from lit_mbldm.processes.stages import Quantise, Stage


class MultiStageProcess(Process):
    """Gaussian noise on a signal that K stages transform one after another.

    x⁰ = z_0 and x^{k+1} = down(x^k). Within stage k the clean signal x_t moves evenly from x^k to
    up(x^{k+1}), in the last stage it is x^K, and z_t ~ N(α_t x_t, σ_t²). The network returns twice
    as many channels as z_t has: v of x_t, and the residual ρ = x^k - up(x^{k+1}), of which the
    drift δ = x^k - x_t is the share of the stage that lies before t; in the last stage δ is 0, and
    ρ is not read. The loss is the squared errors of x_t and δ under Min-SNR weights.

    A batch is of one stage: `loss`, `add_noise` and `predict` take times of one stage only.

    Args:
        stages: K of them, the first applied to z_0.
        boundaries: t/T at which each is done, increasing.
        num_timesteps: T.
        schedule: of ᾱ in the first stage.
        min_snr_gamma: the clamp γ of Min-SNR weighting (Hang et al. 2023).
        self_conditioning: feed back an estimate of x^k.
        snr_power: a stage that divides the noise's variance by g has its signal-to-noise ratio
            multiplied by g to this power. At 1 noise and signal keep their ratio in the coarse
            part; 0 is none.

    Raises:
        InputError: boundaries that do not increase within (0, 1], or are not one a stage, or a
            `Quantise` that is not the first stage.
    """

    samplers = ("ddpm", "ddim")

    def __init__(
        self,
        stages: list[Stage],
        boundaries: list[float],
        num_timesteps: int = 1000,
        schedule: Schedule = "cosine",
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        snr_power: float = 1.0,
    ) -> None:
        super().__init__(num_timesteps, self_conditioning)
        self.starts = [0, *(round(tau * num_timesteps) for tau in boundaries)]
        rising = all(a < b for a, b in pairwise(self.starts)) and self.starts[-1] <= num_timesteps
        if not rising or len(stages) != len(boundaries):
            raise InputError(
                f"Expected {len(stages)} boundaries, one a stage, increasing within (0, 1] by at"
                f" least 1/{num_timesteps}, got {boundaries}."
            )
        if any(isinstance(stage, Quantise) for stage in stages[1:]):
            raise InputError("Quantise works on the latent as it is: put it first of the stages.")
        self.stages: Sequence[Stage] = nn.ModuleList(stages)  # type: ignore[assignment]
        self.boundaries = list(boundaries)
        self.schedule = schedule
        self.min_snr_gamma = min_snr_gamma
        self.snr_power = snr_power
        gains = accumulate((stage.gain**snr_power for stage in stages), operator.mul, initial=1.0)
        noises = [GaussianProcess(num_timesteps, schedule, "v", min_snr_gamma) for _ in self.starts]
        for noise, gain in zip(noises, gains, strict=True):
            noise.multiply_snr(gain)
        self.noises: Sequence[GaussianProcess] = nn.ModuleList(noises)  # type: ignore[assignment]

    def use_latent(self, latent: Latent) -> None:
        """Take over limit and channels; raises InputError for channels that do not chain."""
        super().use_latent(latent)
        for stage in self.stages:
            stage.use_latent(latent)
        self.set_channels(latent.num_channels(latent.codec.num_codes))

    def set_channels(self, channels: int) -> None:
        """Tell each stage the channels that it comes upon, of which z_0 has so many."""
        for stage in self.stages:
            channels = stage.set_channels(channels)

    def output_channels(self, num_channels: int) -> int:
        """Channels of v and ρ together."""
        return 2 * num_channels

    def stage_at(self, t: Time) -> int:
        """The stage k of a time or of times (B,), which lie in one; of t = 0 the first."""
        time = int(t if isinstance(t, int) else t.flatten()[0])
        return max(bisect_left(self.starts, time) - 1, 0)

    def shape_at(self, shape: Sequence[int], t: int) -> tuple[int, ...]:
        """Shape of z_t; raises InputError for a shape of z_0 that the stages are not for."""
        for stage in self.stages[: self.stage_at(t)]:
            shape = stage.coarse_shape(shape)
        return tuple(shape)

    def carry(self, z: Tensor, t: int, s: int) -> Tensor:
        """Bring z_t or an estimate of x_t up to the shape at time s < t."""
        for stage in reversed(self.stages[self.stage_at(s) : self.stage_at(t)]):
            z = stage.up(z)
        return z

    def time_grid(self, steps: int, sampler: str = "ddpm") -> list[int]:
        """Evenly spaced times, with the boundaries between them."""
        return sorted({*super().time_grid(steps), *self.starts}, reverse=True)

    def draw_times(self, streams: SampleStreams, batch_key: tuple[int, ...]) -> Tensor:
        """Draw times of one stage, which the batch's key alone decides; t/T is uniform at last."""
        first = SampleStreams([batch_key]).integers(1, self.num_timesteps + 1)
        k = self.stage_at(first)
        return streams.integers(self.starts[k] + 1, self._end(k) + 1)

    def _end(self, k: int) -> int:
        return [*self.starts[1:], self.num_timesteps][k]

    def prior(self, shape: Sequence[int], streams: SampleStreams) -> Tensor:
        """Draw z_T ~ N(0, 1): (B, *shape)."""
        return streams.normal(shape)

    def signal(self, z0: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """x_t and the residual ρ = x^k - up(x^{k+1}), both of the shape of z_t."""
        k = self.stage_at(t)
        x = z0
        for stage in self.stages[:k]:
            x = stage.down(x)
        if k == len(self.stages):
            return x, torch.zeros_like(x)
        stage = self.stages[k]
        residual = x - stage.up(stage.down(x))
        return x - self.passed(t, x.device) * residual, residual

    def passed(self, t: Time, device: torch.device | str = "cpu") -> Tensor:
        """How far x_t has moved, (B, 1, 1, 1) float32; of one time (1, 1, 1, 1).

        It is the share of the stage that lies before t, and 0 in the last, where x_t stays.
        """
        k, times = self.stage_at(t), torch.as_tensor(t, device=device).view(-1, 1, 1, 1)
        if k == len(self.stages):
            return torch.zeros(times.shape, device=device)
        start, end = self.starts[k], self._end(k)
        return (times - start) / (end - start)

    def add_noise(self, z0: Tensor, t: Time, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_0), of the shape at time t."""
        return self.noises[self.stage_at(t)].add_noise(self.signal(z0, t)[0], t, streams)

    def step_back(
        self, z_s: Tensor, prediction: Prediction, s: int, t: int, streams: SampleStreams
    ) -> Tensor:
        """Draw z_t again; where the step crossed to a finer stage, from the estimate of x_t."""
        assert prediction.drift is not None
        k = self.stage_at(t)
        noise, start = self.noises[k], self.starts[k]
        if s == start and k:
            return noise.add_noise(prediction.z0 - prediction.drift, t, streams)
        moved = prediction.drift * ((t - s) / (t - start))  # x_s - x_t
        return noise.step_back(z_s - noise.alpha_sigma(s)[0] * moved, prediction, s, t, streams)

    def spread(self, marked: Tensor, t: int) -> Tensor:
        """Where z_t depends on marked numbers of z_0."""
        k = self.stage_at(t)
        for stage in self.stages[:k]:
            marked = stage.spread(marked)
        if k == len(self.stages) or t == self.starts[k]:
            return marked
        stage = self.stages[k]
        return marked | (stage.up(stage.spread(marked).float()) > 0)

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Min-SNR weighted squared errors of x_t, by way of v, and of δ, (B,) float32."""
        noise = self.noises[self.stage_at(t)]
        x_t, residual = self.signal(z0, t)
        eps = streams.normal(x_t.shape[1:])
        z_t = noise.mix(x_t, eps, t)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        v, found = self.call(denoiser, z_t, t, estimate, condition).float().chunk(2, dim=1)
        drift_error = self.passed(t, z_t.device) * (found - residual)
        weighted = noise.clamped_snr(t) * drift_error.square().flatten(1).mean(1)
        return noise.error(v, x_t, eps, t) + weighted

    def read(self, output: Tensor, z_t: Tensor, t: Time) -> Prediction:
        """x^k, `z0`, and δ, `drift`, of the network's v and ρ; x_t and x^k are clipped."""
        v, residual = output.chunk(2, dim=1)
        x_t = self.clip(self.noises[self.stage_at(t)].to_z0(v, z_t, t))
        x = self.clip(x_t + self.passed(t, z_t.device) * residual)
        return Prediction(x, drift=x - x_t)

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s with the posterior's variance; s as of `ddim`."""
        return self.ddim(z_t, prediction, t, s, replace(chance, eta=1.0))

    def ddim(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s by DDIM along the moving x_t; s may be the stage's start, but not beyond.

        There z_s takes the shape of the next finer stage; at s = 0 it is the estimate of z_0.
        """
        assert prediction.drift is not None
        k = self.stage_at(t)
        noise, start = self.noises[k], self.starts[k]
        x_t = prediction.z0 - prediction.drift
        moved = prediction.drift * ((t - s) / (t - start))  # x_s - x_t
        alpha, _ = noise.alpha_sigma(s)
        z_s = noise.ddim_step(z_t, x_t, t, s, chance.streams, chance.eta) + alpha * moved
        if s > start or k == 0:
            return z_s
        x_s, stage = x_t + moved, self.stages[k - 1]
        eps = stage.lift(noise.implied_noise(z_s, x_s, s), chance.streams)
        return self.noises[k - 1].mix(stage.up(x_s), eps, s)
