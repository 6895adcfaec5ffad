"""Latents of principal components: a patch's numbers, decorrelated, scaled, the strongest kept.

B samples, S code channels, h×w positions, D numbers a position of which a latent has C.
"""

from typing import cast

import torch
from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError, check_numbers


class ComponentLatent(Latent):
    """The C strongest principal components of D numbers a position; the base of such latents.

    Components are those of the training data, each divided by a power of its deviation, and all by
    one number so that their mean square is 1.

    Args:
        channels: C, at most D.
        whitening: power of the deviation, from 0 (strong components stay strong) to 1 (all are of
            unit variance).

    Raises:
        InputError: values out of range.
    """

    limit = None
    patches: Tensor  # that it was fitted to, int64
    mean: Tensor  # (D,)
    basis: Tensor  # (C, D), of z_0 = basis (x - mean)
    inverse: Tensor  # (D, C)

    def __init__(self, channels: int, whitening: float = 0.5) -> None:
        super().__init__()
        check_numbers(1, channels=channels)
        check_numbers(0, 1, whitening=whitening)
        self.channels = channels
        self.whitening = whitening

    def use(self, codec: ImageCodec) -> None:
        """Make place for the scaling, and refuse a codec without enough numbers a position."""
        super().use(codec)
        D = self.width
        if self.channels > D:
            raise InputError(
                f"Expected channels from 1 to the {D} numbers of a position, got {self.channels}."
            )
        self.register_buffer("patches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(D))
        self.register_buffer("basis", torch.eye(self.channels, D))
        self.register_buffer("inverse", torch.eye(D, self.channels))

    @property
    def width(self) -> int:
        """Numbers D a position."""
        raise NotImplementedError

    def numbers(self, codes: Tensor, images: Tensor | None) -> Tensor:
        """A batch's numbers, as of `to_latent`: (B, h, w, D) float32."""
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, or its result loaded."""
        return bool(self.patches)

    def num_channels(self, num_codes: int) -> int:
        """C."""
        return self.channels

    def moments(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Σ (1, x)(1, x)ᵀ over the batch's positions, (D+1, D+1) float64."""
        x = self.numbers(codes, images).flatten(0, 2).double()
        x = torch.cat([torch.ones_like(x[:, :1]), x], dim=1)
        return x.mT @ x

    def fit(self, moments: Tensor) -> None:
        """Find the principal components from the sum of `moments`, and scale them."""
        self.patches.copy_(moments[0, 0])
        moments = moments / moments[0, 0]
        mean = moments[0, 1:]
        covariance = moments[1:, 1:] - torch.outer(mean, mean)
        variances, directions = torch.linalg.eigh(covariance)
        variances = variances.flip(0)[: self.channels].clamp_min(1e-6)
        directions = directions.flip(1)[:, : self.channels]  # (D, C)
        scale = variances.pow(-self.whitening / 2)
        scale = scale / (variances * scale.square()).mean().sqrt()
        self.mean.copy_(mean)
        self.basis.copy_((directions * scale).mT)
        self.inverse.copy_(directions / scale)

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Turn images, or codes (B, S, h, w) without them, into z_0 (B, C, h, w) float32."""
        return self.to_components(self.numbers(codes, images))

    def to_components(self, numbers: Tensor) -> Tensor:
        """Turn numbers (B, h, w, D) float32 into z_0 (B, C, h, w) float32, about unit scale."""
        with full_float32(numbers.device):
            return ((numbers - self.mean) @ self.basis.mT).permute(0, 3, 1, 2).contiguous()

    def to_numbers(self, z0: Tensor) -> Tensor:
        """The numbers (B, h, w, D) float32 that z_0 (B, C, h, w) stands for.

        Components that it leaves out have their means.
        """
        with full_float32(z0.device):
            return self.mean + z0.float().movedim(1, -1) @ self.inverse.mT


class CoefficientLatent(ComponentLatent):
    """The codec's own numbers, decorrelated: a patch's C strongest coefficients.

    A codec turns a patch into D numbers before it quantises them. Their principal components over
    the training data, strongest first, are the latent, each divided by a power of its deviation,
    and all by one number so that their mean square is 1. Of image shards they are the components of
    the unquantised numbers, of code shards those of codewords.

    Images are decoded from the numbers themselves, without quantisation, unless `quantized`.

    Source: as DCTdiff (Ning et al. 2024) does with the coefficients of JPEG.

    Args:
        channels: C, at most D.
        whitening: power of the deviation, from 0 (strong components stay strong) to 1 (all are of
            unit variance).
        quantized: decode images from the nearest codewords.

    Raises:
        InputError: values out of range, or a codec that has no such numbers or too few.
    """

    def __init__(self, channels: int = 16, whitening: float = 0.5, quantized: bool = False) -> None:
        super().__init__(channels, whitening)
        self.quantized = quantized

    @property
    def width(self) -> int:
        """Numbers D of a patch; raises InputError for a codec without codebooks."""
        return sum(self._widths)

    @property
    def _widths(self) -> list[int]:
        if not isinstance(self.codec, VectorQuantizedCodec):
            raise InputError(
                f"A CoefficientLatent needs a codec with codebooks, got a"
                f" {type(self.codec).__name__}."
            )
        return [book.shape[1] for book in self.codec.codebooks()]

    def numbers(self, codes: Tensor, images: Tensor | None) -> Tensor:
        """The unquantised numbers of images, of codes alone those of codewords."""
        codec = cast(VectorQuantizedCodec, self.codec)
        with full_float32(codes.device):
            if images is not None:
                return torch.cat(codec.split(codec.to_vectors(images)), dim=-1)
            books = codec.codebooks()
            return torch.cat([book[codes[:, s].long()] for s, book in enumerate(books)], dim=-1)

    def smooth_vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors of coefficients z_0 (B, C, h, w); the others have their means."""
        parts = self.to_numbers(z0).split(self._widths, dim=-1)
        return cast(VectorQuantizedCodec, self.codec).assemble([x.contiguous() for x in parts])

    def to_codes(self, z0: Tensor) -> Tensor:
        """Find the codewords nearest to all D numbers: (B, S, h, w) uint8."""
        B, _, h, w = z0.shape
        with full_float32(z0.device):
            return (
                self.codec.quantize(self.smooth_vectors(z0)).view(B, h, w, -1).permute(0, 3, 1, 2)
            )

    def to_vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors that images are decoded from, as they are unless `quantized`."""
        return super().to_vectors(z0) if self.quantized else self.smooth_vectors(z0)
