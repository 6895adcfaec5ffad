"""Stages of a diffusion whose signal gets coarser: from one signal to the next, and back.

B samples, latents (B, C, h, w). Source: f-DM, Gu et al. 2022, arXiv 2210.04955.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError, check_numbers, check_positive
from lit_mbldm.processes.randomness import SampleStreams


class Stage(nn.Module):
    """What makes a signal coarser; the base of all stages, which changes nothing.

    Attributes:
        gain: by how much `down` divides the variance of white noise.
    """

    gain = 1.0

    def use_latent(self, latent: Latent) -> None:
        """Take over what depends on the latent, which has its codec by now."""

    def set_channels(self, channels: int) -> int:
        """Note the channels of the finer signal, and return those of the coarser one."""
        return channels

    def coarse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape (C, h, w) of the coarser signal, for the finer one's.

        Raises InputError for a shape that the stage is not for.
        """
        return tuple(shape)

    def down(self, x: Tensor) -> Tensor:
        """Make a signal coarser."""
        return x

    def up(self, x: Tensor) -> Tensor:
        """Bring a coarser signal to the finer shape; `down` undoes it where the shape changes."""
        return x

    def lift(self, noise: Tensor, streams: SampleStreams) -> Tensor:
        """Draw finer white noise whose coarse part, scaled to unit variance, is this noise."""
        return noise

    def spread(self, marked: Tensor) -> Tensor:
        """Where the coarser signal depends on marked numbers of the finer one, both bool.

        No weight of `down` is negative.
        """
        return self.down(marked.float()) > 0


class Pool(Stage):
    """The mean of factor × factor positions.

    Args:
        factor: positions a side that become one.

    Raises:
        InputError: a factor below 2.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        check_numbers(2, factor=factor)
        self.factor = factor
        self.gain = float(factor**2)

    def extra_repr(self) -> str:
        """The argument."""
        return str(self.factor)

    def coarse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(C, h/factor, w/factor); raises InputError for sides that the factor does not divide."""
        C, h, w = shape
        if h % self.factor or w % self.factor:
            raise InputError(
                f"Expected sides that are multiples of {self.factor} to pool, got {h}×{w}. Change"
                " image_size, or the factor of the stage."
            )
        return C, h // self.factor, w // self.factor

    def down(self, x: Tensor) -> Tensor:
        """Pool (B, C, h, w)."""
        return F.avg_pool2d(x, self.factor)

    def up(self, x: Tensor) -> Tensor:
        """Repeat each position."""
        return x.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)

    def lift(self, noise: Tensor, streams: SampleStreams) -> Tensor:
        """Spread the noise, and add noise whose mean over pooled positions is zero."""
        _, C, h, w = noise.shape
        fresh = streams.normal((C, h * self.factor, w * self.factor)).to(noise)
        return self.up(noise) / self.factor + fresh - self.up(self.down(fresh))


class Blur(Stage):
    """A Gaussian blur; the shape stays, and noise is not blurred.

    Args:
        sigma: standard deviation of the Gaussian in positions.

    Raises:
        InputError: a sigma that is not positive.
    """

    weights: Tensor  # of the positions within 3 sigma, (2·radius + 1,)

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        check_positive(sigma=sigma)
        self.sigma = sigma
        self.radius = math.ceil(3 * sigma)
        places = torch.arange(-self.radius, self.radius + 1) / sigma
        weights = (-places.square() / 2).exp()
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def extra_repr(self) -> str:
        """The argument."""
        return str(self.sigma)

    def down(self, x: Tensor) -> Tensor:
        """Blur (B, C, h, w), whose edges are repeated outwards."""
        weights, size = self.weights.to(x.dtype), 2 * self.radius + 1
        padded = F.pad(x, 4 * (self.radius,), mode="replicate")
        # no convolution, which autocast would round
        rows = (padded.unfold(2, size, 1) * weights).sum(-1)
        return (rows.unfold(3, size, 1) * weights).sum(-1)


class Truncate(Stage):
    """The first channels alone: of a `CoefficientLatent` the strongest coefficients.

    Args:
        keep: channels of the coarser signal.

    Raises:
        InputError: no channel.
    """

    def __init__(self, keep: int) -> None:
        super().__init__()
        check_numbers(1, keep=keep)
        self.keep = keep
        self.channels = keep

    def extra_repr(self) -> str:
        """The argument."""
        return str(self.keep)

    def set_channels(self, channels: int) -> int:
        """Note what is cut to `keep`; raises InputError where that leaves nothing out."""
        if self.keep >= channels:
            raise InputError(
                f"Expected a stage that keeps fewer than its {channels} channels, got keep:"
                f" {self.keep}."
            )
        self.channels = channels
        return self.keep

    def coarse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(keep, h, w)."""
        return self.keep, *shape[1:]

    def down(self, x: Tensor) -> Tensor:
        """Cut channels off."""
        return x[:, : self.keep]

    def up(self, x: Tensor) -> Tensor:
        """Append zeros."""
        return F.pad(x, (0, 0, 0, 0, 0, self.channels - self.keep))

    def lift(self, noise: Tensor, streams: SampleStreams) -> Tensor:
        """Append noise."""
        fresh = streams.normal((self.channels - self.keep, *noise.shape[2:])).to(noise)
        return torch.cat([noise, fresh], dim=1)


class Quantise(Stage):
    """What the latent's codes keep of the signal, whose shape stays; the first stage only.

    That is of a `CoefficientLatent` the nearest codewords.
    """

    latent: Latent

    def use_latent(self, latent: Latent) -> None:
        """Quantise as this latent does."""
        vars(self)["latent"] = latent  # no submodule: the model has it already

    def down(self, x: Tensor) -> Tensor:
        """Quantise (B, C, h, w), a signal in the finest stage, to float32."""
        return self.latent.to_latent(self.latent.to_codes(x))

    def spread(self, marked: Tensor) -> Tensor:
        """All numbers of a position that has a marked one."""
        return marked.any(1, keepdim=True).expand_as(marked)
