"""Pixels in place of codes: a codec that keeps them, and a latent of images beside a codec."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.codecs.sizes import resize, to_uint8
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError


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


class PixelLatent(Latent):
    """Pixels in [-1, 1], those of a block as the channels of one position.

    White noise on it is white noise on the image. Codes alone are the pixels that they decode to.
    Its grid is that of the blocks, whatever the codec's.

    Args:
        block: side of a block in pixels.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self.block = block

    def num_channels(self, num_codes: int) -> int:
        """Red, green and blue of each pixel of a block."""
        return 3 * self.block**2

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Turn images, or what codes decode to without them, into z_0.

        Raises InputError for sides that are no multiples of the block's.
        """
        images = self.codec.decode(codes) if images is None else images
        H, W = images.shape[2:]
        if H % self.block or W % self.block:
            raise InputError(
                f"Expected images of sides that are multiples of block {self.block}, got {H}×{W}."
            )
        return F.pixel_unshuffle(images / 127.5 - 1, self.block)

    def to_codes(self, z0: Tensor) -> Tensor:
        """Encode the image that z_0 is."""
        return self.codec.encode(self.decode(z0))

    def decode(self, z0: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Round z_0 to images (B, 3, H, W) uint8 RGB; None is its own size."""
        images = 127.5 * (F.pixel_shuffle(z0, self.block) + 1)
        return to_uint8(resize(images, size))
