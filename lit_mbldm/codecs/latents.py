"""Latents: codes read as numbers for a model, and numbers back as codes and images.

B samples, S code channels, h×w positions, K codewords, C channels of a latent.
"""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError


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
            InputError: a latent of whose numbers between codes no images are known.
        """
        with full_float32(z0.device):
            vectors = self.smooth_vectors(z0)
            size = (images.shape[2], images.shape[3])
            decoded = self.codec.enlarge(self.codec.restore(vectors), vectors, size)
            return ((decoded - images) / 127.5).square().mean((1, 2, 3))

    def smooth_vectors(self, z0: Tensor) -> Tensor:
        """The codec's vectors of z_0 (B, C, h, w), not rounded, so that gradients pass.

        Raises InputError as `image_error`.
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
        return self._indices(z0).round().to(torch.uint8)

    def smooth_vectors(self, z0: Tensor) -> Tensor:
        """Between two indices the codewords' weighted mean: exact where they are levels."""
        codec, indices = cast(VectorQuantizedCodec, self.codec), self._indices(z0)
        low = indices.detach().floor().clamp(max=self.num_codewords - 2).long()
        share = (indices - low)[..., None]  # (B, S, h, w, 1)
        return codec.assemble(
            [
                torch.lerp(book[low[:, s]], book[low[:, s] + 1], share[:, s])
                for s, book in enumerate(codec.codebooks())
            ]
        )

    def _indices(self, z0: Tensor) -> Tensor:
        K = self.num_codewords
        return ((z0.float() + 1) * ((K - 1) / 2)).clamp(0, K - 1)
