"""What every process does: noise a latent on the way forward, and step back.

B samples, latents (B, C, h, w), T timesteps; t = 0 is clean, t = T is noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import check_numbers
from lit_mbldm.processes.randomness import SampleStreams

Time = int | Tensor
# What a denoiser is told besides z_t and t: labels (B,) int64, a map (B, M, h, w), or nothing.
Condition = Tensor | None


class Denoiser(Protocol):
    """Any network with these inputs."""

    def __call__(
        self, z_t: Tensor, time: Tensor, self_condition: Tensor, condition: Condition, /
    ) -> Tensor:
        """Predict from z_t (B, C, h, w), t/T (B,), an earlier estimate of z_0, and a condition."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of the clean latent.

    Attributes:
        z0: (B, C, h, w) estimate of z_0, of a process in stages of the stage's clean signal; the
            next step's self-conditioning.
        logits: (B, S, h, w, K) over codewords, where the process has such; of independent bits
            their cavity log-odds (B, C, h, w).
        drift: (B, C, h, w), by how far `z0` lies from what z_t is noised from, where it does.
    """

    z0: Tensor
    logits: Tensor | None = None
    drift: Tensor | None = None


@dataclass(frozen=True)
class Chance:
    """What a reverse step draws by.

    Attributes:
        streams: B of them.
        temperature: of the probabilities, where the process has such.
        eta: of DDIM, from 0 (no noise) to 1.
    """

    streams: SampleStreams
    temperature: float = 1.0
    eta: float = 0.0


class Process(nn.Module):
    """The base of all processes. A latent may change its shape on the way.

    Args:
        num_timesteps: T.
        self_conditioning: feed back an estimate of z_0 (Chen et al. 2022).

    Raises:
        InputError: no timestep.
    """

    samplers: ClassVar[tuple[str, ...]] = ("ddpm",)  # those that it can be sampled with
    has_temperature: ClassVar[bool] = False  # whether its steps take one
    follows_training: ClassVar[bool] = False  # whether its loss changes with training's progress
    limit: float | None = 1.0  # of |z_0|, the latent's

    def __init__(self, num_timesteps: int = 1000, self_conditioning: bool = True) -> None:
        super().__init__()
        check_numbers(1, num_timesteps=num_timesteps)
        self.num_timesteps = num_timesteps
        self.self_conditioning = self_conditioning

    def use(self, codec: ImageCodec) -> None:
        """Take over what depends on the codec; raises InputError for one that it is not for."""

    def use_latent(self, latent: Latent) -> None:
        """Take over what depends on the latent, which has its codec by now."""
        self.limit = latent.limit

    def output_channels(self, num_channels: int) -> int:
        """Channels that the network must return for a latent of C channels."""
        return num_channels

    def shape_at(self, shape: Sequence[int], t: int) -> tuple[int, ...]:
        """Shape of z_t, for z_0 of this shape; both without B."""
        return tuple(shape)

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """The different shapes that z_t has from t = 0 to T, as of `shape_at`."""
        times = range(self.num_timesteps + 1)
        return list(dict.fromkeys(self.shape_at(shape, t) for t in times))

    def carry(self, z: Tensor, t: int, s: int) -> Tensor:
        """Bring z_t, or an estimate of its shape, to the shape at time s < t."""
        return z

    def time_grid(self, steps: int, sampler: str = "ddpm") -> list[int]:
        """Times T = t_0 > t_1 > … > 0 of a sampler, evenly; InputError for steps outside [1, T]."""
        T = self.num_timesteps
        check_numbers(1, T, steps=steps)
        return [round(T * (steps - i) / steps) for i in range(steps + 1)]

    def draw_times(self, streams: SampleStreams, batch_key: tuple[int, ...]) -> Tensor:
        """Draw the times to train at, (B,) int64 in [1, T].

        Args:
            streams: B of them.
            batch_key: of what all samples of a batch share, on every rank.
        """
        return streams.integers(1, self.num_timesteps + 1)

    def prior(self, shape: Sequence[int], streams: SampleStreams) -> Tensor:
        """Draw z_T, (B, *shape)."""
        raise NotImplementedError

    def add_noise(self, z0: Tensor, t: Time, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_0) for z_0 (B, C, h, w) and t (B,) in [0, T]."""
        raise NotImplementedError

    def add_more_noise(self, z_s: Tensor, s: Tensor, t: Tensor, streams: SampleStreams) -> Tensor:
        """Draw z_t ~ q(z_t | z_s), s < t, both (B,)."""
        raise NotImplementedError

    def step_back(
        self, z_s: Tensor, prediction: Prediction, s: int, t: int, streams: SampleStreams
    ) -> Tensor:
        """Draw z_t again, of the step from t to s that `prediction` was made for."""
        earlier, later = (torch.full((len(z_s),), one, device=z_s.device) for one in (s, t))
        return self.add_more_noise(z_s, earlier, later, streams)

    def spread(self, marked: Tensor, t: int) -> Tensor:
        """Where z_t depends on marked numbers of z_0, (B, C, h, w) bool: of the shape of z_t."""
        return marked

    def predict(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None = None,
        condition: Condition = None,
    ) -> Prediction:
        """Ask the network for z_0, and `read` what it returns.

        Args:
            denoiser: the network.
            z_t: (B, C, h, w).
            t: one time for all, or (B,) int64 in [1, T].
            self_condition: an earlier estimate of z_0, (B, C, h, w), or None.
            condition: of the network, a row a sample, or None.
        """
        output = self.call(denoiser, z_t, t, self_condition, condition)
        return self.read(output.float(), z_t, t)

    def read(self, output: Tensor, z_t: Tensor, t: Time) -> Prediction:
        """What a network's output, (B, output_channels, h, w), says of z_0."""
        raise NotImplementedError

    def estimate(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, condition: Condition = None
    ) -> Tensor:
        """Ask the network for a first estimate of z_0 alone, (B, C, h, w)."""
        return self.predict(denoiser, z_t, t, None, condition).z0

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample.

        Args:
            denoiser: the network.
            z0: (B, C, h, w) float32.
            t: (B,) int64 in [1, T].
            streams: B of them.
            condition: of the network, or None.
            images: that z_0 comes from, (B, 3, H, W) uint8 RGB, where they are at hand.

        Returns:
            (B,) float32.
        """
        raise NotImplementedError

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw z_s, any s < t, from z_t and what the network predicts at t; z_0 itself at s = 0."""
        raise NotImplementedError

    def ddim(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """DDIM's z_s, as `step`, of a process with that sampler."""
        raise NotImplementedError

    def clip(self, z0: Tensor) -> Tensor:
        """Clip an estimate of z_0 to the latent's limit."""
        return z0 if self.limit is None else z0.clamp(-self.limit, self.limit)

    def call(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None,
        condition: Condition,
    ) -> Tensor:
        """Run the network at time t/T; without an earlier estimate it sees zeros."""
        time = torch.as_tensor(t, device=z_t.device).expand(len(z_t)) / self.num_timesteps
        if self_condition is None or not self.self_conditioning:
            self_condition = torch.zeros_like(z_t)
        return denoiser(z_t, time, self_condition, condition)

    def first_estimate(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition,
    ) -> Tensor | None:
        """Training's self-conditioning: for half of the samples a first pass, else zeros."""
        if not self.self_conditioning:
            return None
        heads = streams.uniform(()) < 0.5  # (B,)
        estimate = torch.zeros_like(z_t)
        if heads.any():
            told = None if condition is None else condition[heads]
            with torch.no_grad():
                found = self.estimate(denoiser, z_t[heads], t[heads], told)
            estimate[heads] = found.to(z_t.dtype)
        return estimate
