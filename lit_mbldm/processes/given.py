"""What a sampler is given of the sample that it is to draw: editing, for every process.

B samples, latents (B, C, h, w), T timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mbldm.errors import check_numbers
from lit_mbldm.processes.base import Process
from lit_mbldm.processes.randomness import SampleStreams


@dataclass(frozen=True)
class Given:
    """A latent to start from, and what of it stays as it is.

    Attributes:
        z0: (B, C, h, w) float32.
        strength: t/T to start at, from z_0 noised to t (SDEdit, Meng et al. 2021, arXiv
            2108.01073). 0 returns z_0 itself, 1 starts from noise alone.
        again: (B, 1, h, w) bool, the positions to draw; the others are z_0, noised as far as the
            sample at each step. None draws all.
        resamplings: how often each step is taken, with noise put back between, so that what is
            drawn and what stays agree (RePaint, Lugmayr et al. 2022, arXiv 2201.09865).

    Raises:
        InputError: a strength outside [0, 1], or fewer than one resampling.
    """

    z0: Tensor
    strength: float = 1.0
    again: Tensor | None = None
    resamplings: int = 1

    def __post_init__(self) -> None:
        check_numbers(0, 1, strength=self.strength)
        check_numbers(1, resamplings=self.resamplings)

    def times(self, grid: Sequence[int]) -> list[int]:
        """The times of a sampler's grid T > … > 0 from the start on, which is the first."""
        start = round(self.strength * grid[0])
        return [start, *(t for t in grid if t < start)]

    def begin(self, process: Process, t: int, streams: SampleStreams) -> Tensor:
        """Draw z_t, t < T, that sampling starts from."""
        return process.add_noise(self.z0, t, streams) if t else self.z0

    def keep(self, process: Process, z: Tensor, t: int, streams: SampleStreams) -> Tensor:
        """Put what stays, noised to t, into z_t."""
        if self.again is None:
            return z
        marked = process.spread(self.again.expand_as(self.z0), t)
        return torch.where(marked, z, process.add_noise(self.z0, t, streams))
