"""Latents: codes read as numbers for a model, and numbers back as codes and images.

B samples, S code channels, h×w positions, K codewords, D numbers a patch of which a latent has C.
"""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError, check_numbers


class Latent(nn.Module):
    """What a codec's codes are as numbers z_0 of about unit scale; the base of all latents."""

    limit: float | None = 1.0  # of |z_0|, where there is one
    # the arguments without which a trained model's numbers mean something else
    meaning: ClassVar[tuple[str, ...]] = ()
    codec: ImageCodec

    def use(self, codec: ImageCodec) -> None:
        """Take over what depends on the codec."""
        vars(self)["codec"] = codec  # no submodule: the model has it already

    def num_channels(self, num_codes: int) -> int:
        """Channels C of z_0 for S code channels."""
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether it is scaled to training data, where it is scaled to any."""
        return True

    def moments(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Sums over a batch, as of `to_latent`, that `fit` needs of training data."""
        raise NotImplementedError

    def fit(self, moments: Tensor) -> None:
        """Scale to the training data whose `moments` were added up."""
        raise NotImplementedError

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Turn codes into z_0.

        Args:
            codes: (B, S, h, w) in [0, K-1].
            images: that they are the codes of, (B, 3, H, W) uint8 RGB, where they are at hand.

        Returns:
            (B, C, h, w) float32.
        """
        raise NotImplementedError

    def to_codes(self, z0: Tensor) -> Tensor:
        """Turn z_0 (B, C, h, w) of any values into the nearest codes (B, S, h, w) uint8."""
        raise NotImplementedError

    def image_error(self, z0: Tensor, images: Tensor) -> Tensor:
        """Mean squared RGB error, x in [-1, 1], of what z_0 decodes to; differentiable in z_0.

        Args:
            z0: (B, C, h, w).
            images: (B, 3, H, W) uint8 RGB, of any size that the codec decodes to.

        Returns:
            (B,) float32.

        Raises:
            InputError: a latent that is decoded by way of codes alone.
        """
        raise InputError(
            f"A {type(self).__name__} decodes rounded numbers, through which no gradient passes:"
            " use a CoefficientLatent, or leave alignment_weight out."
        )

    def to_vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors that images are decoded from: those of the nearest codes."""
        return self.codec.look_up(self.to_codes(z0).long())

    def decode(self, z0: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Decode z_0 (B, C, h, w) to images (B, 3, H, W) uint8 RGB; None is the codec's size."""
        with full_float32(z0.device):
            return self.codec.decode_vectors(self.to_vectors(z0), size)


class IndexLatent(Latent):
    """The index of a codeword, scaled: z_0 = 2·index/(K-1) - 1, a channel a code.

    Source: Scribano et al. 2023, section 3.2.1.

    Args:
        codebook_size: codewords K of the codec; None takes the codec's, 256 without one.
    """

    def __init__(self, codebook_size: int | None = None) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_codewords = codebook_size or 256

    def use(self, codec: ImageCodec) -> None:
        """Refuse a codec with another number of codewords than `codebook_size`."""
        super().use(codec)
        if self.codebook_size not in (None, codec.codebook_size):
            raise InputError(
                f"The latent has codebook_size {self.codebook_size}, the codec"
                f" {codec.codebook_size}: leave the latent's out."
            )
        self.num_codewords = codec.codebook_size

    def num_channels(self, num_codes: int) -> int:
        """S."""
        return num_codes

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Scale codes (B, S, h, w) in [0, K-1] to z_0 of the same shape, float32."""
        return codes.float() * (2 / (self.num_codewords - 1)) - 1

    def to_codes(self, z0: Tensor) -> Tensor:
        """Round z_0 to the nearest index, clamped to [0, K-1]: (B, S, h, w) uint8."""
        K = self.num_codewords
        return ((z0 + 1) * ((K - 1) / 2)).round().clamp(0, K - 1).to(torch.uint8)


class CoefficientLatent(Latent):
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

    limit = None
    patches: Tensor  # that it was fitted to, int64
    mean: Tensor  # (D,)
    basis: Tensor  # (C, D), of z_0 = basis (x - mean)
    inverse: Tensor  # (D, C)

    def __init__(self, channels: int = 16, whitening: float = 0.5, quantized: bool = False) -> None:
        super().__init__()
        check_numbers(1, channels=channels)
        check_numbers(0, 1, whitening=whitening)
        self.channels = channels
        self.whitening = whitening
        self.quantized = quantized

    def use(self, codec: ImageCodec) -> None:
        """Make place for the scaling, and refuse a codec without enough numbers a patch."""
        super().use(codec)
        D = sum(self._widths)
        if self.channels > D:
            raise InputError(
                f"{codec.quantizer} has {D} numbers a patch, too few for channels: {self.channels}."
            )
        self.register_buffer("patches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(D))
        self.register_buffer("basis", torch.eye(self.channels, D))
        self.register_buffer("inverse", torch.eye(D, self.channels))

    @property
    def _widths(self) -> list[int]:
        if not isinstance(self.codec, VectorQuantizedCodec):
            raise InputError(
                f"A CoefficientLatent needs a codec with codebooks, got a"
                f" {type(self.codec).__name__}."
            )
        return [book.shape[1] for book in self.codec.codebooks()]

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, or its result loaded."""
        return bool(self.patches)

    def num_channels(self, num_codes: int) -> int:
        """C."""
        return self.channels

    def _numbers(self, codes: Tensor, images: Tensor | None) -> Tensor:
        """(B, h, w, D) float32."""
        codec = cast(VectorQuantizedCodec, self.codec)
        with full_float32(codes.device):
            if images is not None:
                return torch.cat(codec.split(codec.to_vectors(images)), dim=-1)
            books = codec.codebooks()
            return torch.cat([book[codes[:, s].long()] for s, book in enumerate(books)], dim=-1)

    def moments(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Σ (1, x)(1, x)ᵀ over the batch's patches, (D+1, D+1) float64."""
        x = self._numbers(codes, images).flatten(0, 2).double()
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
        x = self._numbers(codes, images)
        with full_float32(x.device):
            return ((x - self.mean) @ self.basis.mT).permute(0, 3, 1, 2).contiguous()

    def _vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors with these coefficients; the others are their means."""
        codec = cast(VectorQuantizedCodec, self.codec)
        x = self.mean + z0.float().movedim(1, -1) @ self.inverse.mT  # (B, h, w, D)
        return codec.assemble([part.contiguous() for part in x.split(self._widths, dim=-1)])

    def image_error(self, z0: Tensor, images: Tensor) -> Tensor:
        """Mean squared RGB error of what z_0 decodes to without quantisation. As `Latent`'s."""
        with full_float32(z0.device):
            vectors = self._vectors(z0)
            size = (images.shape[2], images.shape[3])
            decoded = self.codec.enlarge(self.codec.restore(vectors), vectors, size)
            return ((decoded - images) / 127.5).square().mean((1, 2, 3))

    def to_codes(self, z0: Tensor) -> Tensor:
        """Find the codewords nearest to all D numbers: (B, S, h, w) uint8."""
        B, _, h, w = z0.shape
        with full_float32(z0.device):
            return self.codec.quantize(self._vectors(z0)).view(B, h, w, -1).permute(0, 3, 1, 2)

    def to_vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors that images are decoded from, as they are unless `quantized`."""
        return super().to_vectors(z0) if self.quantized else self._vectors(z0)
