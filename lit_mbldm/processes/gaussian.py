"""The continuous reverse process: the network regresses ε, z_0 or v."""

from typing import Literal, get_args

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes.forward import Denoiser, GaussianForward, Prediction, Time
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule

Objective = Literal["eps", "x0", "v"]


class GaussianProcess(GaussianForward):
    """DDPM on a latent of real numbers (Scribano et al. 2023, section 4.2.2).

    The network returns as many channels as the latent has.

    Args:
        num_timesteps: T.
        schedule: of ᾱ.
        objective: what the network predicts: ε, z_0 or v (Salimans & Ho 2022).
        min_snr_gamma: the clamp γ of Min-SNR weighting.
        self_conditioning: feed back an estimate of z_0.
        codebook_size: codewords K of the codec.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        objective: Objective = "eps",
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int = 256,
    ) -> None:
        super().__init__(num_timesteps, schedule, min_snr_gamma, self_conditioning, codebook_size)
        if objective not in get_args(Objective):
            raise InputError(f"Expected an objective of {get_args(Objective)}, got {objective!r}.")
        self.objective = objective

    def predict(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, self_condition: Tensor | None = None
    ) -> Prediction:
        """Ask the network for z_0, clipped to [-1, 1]."""
        output = self.call(denoiser, z_t, t, self_condition).float()
        signal, noise = self.scales(t)
        if self.objective == "eps":
            z0 = (z_t - noise * output) / signal
        elif self.objective == "v":
            z0 = signal * z_t - noise * output
        else:
            z0 = output
        return Prediction(z0.clamp(-1, 1))

    def loss(self, denoiser: Denoiser, z0: Tensor, t: Tensor, generator: SampleStreams) -> Tensor:
        """Min-SNR weighted squared error of the objective.

        Args:
            denoiser: the network.
            z0: (B, S, h, w) float32 in [-1, 1].
            t: (B,) int64 in [1, T].
            generator: B streams.

        Returns:
            (B,) float32.
        """
        eps = generator.normal(z0.shape[1:])
        z_t = self.mix(z0, eps, t)
        estimate = self.first_estimate(denoiser, z_t, t, generator)
        output = self.call(denoiser, z_t, t, estimate).float()
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
        snr = self.snr(t).flatten()
        clamped = snr.clamp(max=self.min_snr_gamma)
        if self.objective == "eps":
            return clamped / snr
        return clamped / (snr + 1) if self.objective == "v" else clamped

    def step(
        self, z_t: Tensor, prediction: Prediction, t: int, s: int, generator: SampleStreams
    ) -> Tensor:
        """Draw z_s ~ q(z_s | z_t, ẑ_0) for any s < t; at s = 0 it is ẑ_0 itself."""
        return self.draw_posterior(z_t, prediction.z0, t, s, generator)

    def expected(self, prediction: Prediction) -> Tensor:
        """The estimate of z_0."""
        return prediction.z0

    def finish(self, prediction: Prediction, generator: SampleStreams) -> Tensor:
        """The last step's z_0: the estimate itself."""
        return prediction.z0
