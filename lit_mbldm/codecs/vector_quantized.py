"""VectorQuantizedCodec: codes that are indices of codewords.

B images, H×W pixels, h×w patches, S code channels, K codewords of d numbers each.
"""

from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.precision import full_float32


class VectorQuantizedCodec(ImageCodec):
    """A codec with a codebook for each code channel; what decodes codewords is affine.

    Args as for `ImageCodec`. Codebooks are buffers.
    """

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        raise NotImplementedError

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S (possibly soft) codewords (B, h, w, d) into vectors; linear."""
        raise NotImplementedError

    def image_error(self, codewords: list[Tensor], target: Tensor) -> Tensor:
        """Mean squared RGB error of softly decoded images, x in [-1, 1], unclipped.

        Args:
            codewords: S soft codewords (B, h, w, d).
            target: vectors, of `look_up` or `to_vectors`.

        Returns:
            (B,) float32.
        """
        difference = self.to_images(self.assemble(codewords)) - self.to_images(target)
        return (difference / 127.5).square().mean(dim=(1, 2, 3))

    def decode_soft(self, weights: Tensor) -> Tensor:
        """Decode mixtures of codewords; differentiable in the weights (equation 21).

        Args:
            weights: (B, S, K, h, w) float, summing to one over K.

        Returns:
            (B, 3, H, W) float RGB, nominal range [0, 255]; equals `reconstruct` for one-hot
            weights.
        """
        with full_float32(weights.device):
            return self.to_images(self.assemble(self.soft_codewords(weights)))

    def soft_codewords(self, weights: Tensor) -> list[Tensor]:
        """Expected codewords: S tensors (B, h, w, d) from weights (B, S, K, h, w)."""
        sizes = weights.shape[3:]
        mixtures = [
            codebook.t() @ part.flatten(2).to(codebook.dtype)  # (B, d, hw)
            for part, codebook in zip(weights.unbind(1), self.codebooks(), strict=True)
        ]
        return [mixture.unflatten(2, sizes).permute(0, 2, 3, 1) for mixture in mixtures]

    def look_up(self, codes: Tensor) -> Tensor:
        """Turn codes (B, S, h, w) int64 into vectors."""
        return self.assemble([book[codes[:, code]] for code, book in enumerate(self.codebooks())])
