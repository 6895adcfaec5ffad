"""A Gaussian process that is sampled from weaker noise than it was trained with."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lit_mbldm.errors import check_numbers
from lit_mbldm.processes.gaussian import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams


class ScaledPriorProcess(GaussianProcess):
    """A Gaussian process whose samples vary less, by a scale of the noise that they start from.

    It suits deterministic samplers of a network that is told most of the image. Where such a
    network is unsure, noise of full strength stays in the image as grain.

    Args:
        noise_scale: times the deviation of z_T; at 0 all samples are one.
        **options: of `GaussianProcess`.

    Raises:
        InputError: a negative scale.
    """

    def __init__(self, noise_scale: float, **options: Any) -> None:
        super().__init__(**options)
        check_numbers(0, noise_scale=noise_scale)
        self.noise_scale = noise_scale

    def prior(self, shape: Sequence[int], streams: SampleStreams) -> Tensor:
        """Draw z_T, (B, *shape)."""
        return self.noise_scale * super().prior(shape, streams)
