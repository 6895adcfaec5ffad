"""Pixels in place of codes: a codec that keeps them."""

import torch
from torch import Tensor

from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec


class PixelCodec(VectorQuantizedCodec):
    """Red, green and blue of a pixel as three codes: nothing is changed, nothing lost.

    A model with it learns pixels; an `IndexLatent` scales them to [-1, 1].

    Example:
        >>> images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
        >>> codes = PixelCodec().encode(images)
        >>> codes.equal(images)
        True
        >>> PixelCodec().decode(codes).equal(images)
        True
    """

    levels: Tensor  # (256, 1)

    def __init__(self) -> None:
        super().__init__("RGB", patch_size=1, codebook_size=256)
        levels = torch.arange(256, dtype=torch.float32)[:, None]
        self.register_buffer("levels", levels, persistent=False)

    @property
    def code_names(self) -> list[str]:
        """The colours."""
        return ["R", "G", "B"]

    def codebooks(self) -> list[Tensor]:
        """The levels of each colour."""
        return [self.levels] * 3

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into (B, H, W, 3) float32."""
        return images.movedim(1, -1).float()

    def quantize(self, vectors: Tensor) -> Tensor:
        """Round vectors (B, H, W, 3) to codes (BHW, 3) uint8."""
        return vectors.flatten(0, 2).round().clamp(0, 255).to(torch.uint8)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Join three (B, H, W, 1) to (B, H, W, 3)."""
        return torch.cat(codewords, dim=-1)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Cut (B, H, W, 3) into three (B, H, W, 1)."""
        return list(vectors.split(1, dim=-1))

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors (B, H, W, 3) into (B, 3, H, W)."""
        return vectors.movedim(-1, 1)
