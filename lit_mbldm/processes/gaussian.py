"""The continuous reverse process of Gaussian noise: a network regresses ε, z_0 or v.

B samples, latents (B, C, h, w), T timesteps; t = 0 is clean, t = T is noise.
"""

from typing import Literal

from torch import Tensor

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError, check_choice, check_numbers
from lit_mbldm.processes.base import Condition, Denoiser, Prediction, Time
from lit_mbldm.processes.gaussian_forward import GaussianForward
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule

Objective = Literal["eps", "x0", "v"]


class GaussianProcess(GaussianForward):
    """DDPM on a latent of real numbers (Scribano et al. 2023, section 4.2.2).

    The network returns as many channels as the latent has. Alignment adds the squared error of
    the decoded image, min(SNR, γ)·‖x_0 - D(ẑ_0)‖², with a gradient through the decoder, which stays
    as it is (Kim & Kim 2024, arXiv 2403.10255, section 3.3, under Min-SNR weights).

    Args:
        num_timesteps: T.
        schedule: of ᾱ.
        objective: what the network predicts: ε, z_0 or v (Salimans & Ho 2022).
        min_snr_gamma: the clamp γ of Min-SNR weighting (Hang et al. 2023).
        self_conditioning: feed back an estimate of z_0.
        codebook_size: codewords K of the codec; None takes the codec's.
        alignment_weight: of the decoded image's squared error; its batches need images.
    """

    _latent: tuple[Latent, ...] = ()  # no submodule: not saved with it

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        objective: Objective = "eps",
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int | None = None,
        alignment_weight: float = 0.0,
    ) -> None:
        super().__init__(num_timesteps, schedule, min_snr_gamma, self_conditioning, codebook_size)
        check_numbers(0, alignment_weight=alignment_weight)
        check_choice(Objective, objective=objective)
        self.objective = objective
        self.alignment_weight = alignment_weight

    def use_latent(self, latent: Latent) -> None:
        """Take over the limit, and the decoder for alignment."""
        super().use_latent(latent)
        self._latent = (latent,)

    def read(self, output: Tensor, z_t: Tensor, t: Time) -> Prediction:
        """The z_0 that a network's output means, clipped to the latent's limit."""
        return Prediction(self.clip(self.to_z0(output, z_t, t)))

    def to_z0(self, output: Tensor, z_t: Tensor, t: Time) -> Tensor:
        """The z_0 (B, C, h, w) that a network's output means."""
        alpha, sigma = self.alpha_sigma(t)
        if self.objective == "eps":
            return (z_t - sigma * output) / alpha
        return alpha * z_t - sigma * output if self.objective == "v" else output

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Min-SNR weighted squared error of the objective, and of the image, (B,) float32."""
        eps = streams.normal(z0.shape[1:])
        z_t = self.mix(z0, eps, t)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        output = self.call(denoiser, z_t, t, estimate, condition).float()
        loss = self.error(output, z0, eps, t)
        if not self.alignment_weight:
            return loss
        if images is None:
            raise InputError(
                "alignment_weight compares with the photographs, but the batches hold codes alone."
                " Train on image shards, or leave it out."
            )
        error = self._latent[0].image_error(self.to_z0(output, z_t, t), images)
        return loss + self.alignment_weight * self.clamped_snr(t) * error

    def error(self, output: Tensor, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Min-SNR weighted squared error of a network's output, (B,)."""
        if self.objective == "eps":
            target = eps
        elif self.objective == "v":
            target = self.mix(eps, -z0, t)  # √ᾱ ε - √(1-ᾱ) z_0
        else:
            target = z0
        error = (output - target).square().flatten(1).mean(1)
        return self.loss_weight(t) * error

    def loss_weight(self, t: Tensor) -> Tensor:
        """Min-SNR-γ weight of the objective's squared error, (B,) (Hang et al. 2023, 3.4)."""
        snr, clamped = self.snr(t).flatten(), self.clamped_snr(t)
        if self.objective == "eps":
            return clamped / snr
        return clamped / (snr + 1) if self.objective == "v" else clamped
