"""Consistency tuning: a trained model learns to find z_0 in a few steps.

B samples, latents (B, C, h, w), T timesteps; t = 0 is clean, t = T is noise.
"""

import torch
from torch import Tensor

from lit_mbldm.errors import check_numbers
from lit_mbldm.processes.base import Condition, Denoiser
from lit_mbldm.processes.gaussian import GaussianProcess, Objective
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule


class ConsistencyProcess(GaussianProcess):
    """Consistency models, started from a diffusion model (Geng et al. 2024, arXiv 2406.14548).

    The estimate of z_0 at time t learns to equal the network's own at an earlier time s of the same
    path, where it is better. At first s = 0, which is the diffusion model's loss; with k halvings
    the noise-to-signal ratio at s is 1 - 2⁻ᵏ n of that at t, n from 1 to 5 as of equation 22. At
    s = 0 the estimate is z_0 itself.

    Args:
        num_timesteps: T.
        schedule: of ᾱ.
        objective: what the network predicts: ε, z_0 or v.
        min_snr_gamma: the clamp γ of Min-SNR weighting.
        halvings: of the distance from t to s, at even intervals of training.

    Raises:
        InputError: fewer than no halvings.
    """

    samplers = ("ddpm", "ddim", "dpm++", "consistency")
    follows_training = True

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "cosine",
        objective: Objective = "v",
        min_snr_gamma: float = 5.0,
        halvings: int = 8,
    ) -> None:
        super().__init__(num_timesteps, schedule, objective, min_snr_gamma, self_conditioning=False)
        check_numbers(0, halvings=halvings)
        self.halvings = halvings
        self.progress = 0.0  # of training, from 0 to 1

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Min-SNR weighted squared distance of the estimates at t and s, over their own, (B,)."""
        eps, s = streams.normal(z0.shape[1:]), self.earlier(t)
        z_t, z_s = self.mix(z0, eps, t), self.mix(z0, eps, s)
        with torch.no_grad():
            target = self._estimate(denoiser, z_s, s, condition)
        error = (self._estimate(denoiser, z_t, t, condition) - target).square().flatten(1).mean(1)
        noise_t, noise_s = (self.snr(one).flatten().rsqrt() for one in (t, s))
        share = (noise_t - noise_s) / noise_t
        return self.clamped_snr(t) * error / share

    def earlier(self, t: Tensor) -> Tensor:
        """The time s < t (B,) to agree with, for t (B,) in [1, T]."""
        noise = self.snr(torch.arange(self.num_timesteps + 1, device=t.device)).flatten().rsqrt()
        n = 1 + 8 * torch.sigmoid(-noise[t])
        ratio = 1 - n / 2 ** min(int(self.progress * (self.halvings + 1)), self.halvings)
        s = torch.searchsorted(noise, noise[t] * ratio.clamp(min=0), right=True) - 1
        return torch.minimum(s, t - 1)

    def _estimate(self, denoiser: Denoiser, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's z_0, unclipped; z_t itself at t = 0."""
        output = self.call(denoiser, z_t, t, None, condition).float()
        return torch.where((t == 0).view(-1, 1, 1, 1), z_t, self.to_z0(output, z_t, t))
