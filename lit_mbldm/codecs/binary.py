"""BinaryCodec: an autoencoder's bits as codes.

B images, H×W pixels, h×w positions of c bits, S = c/8 codes a position.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.bits import from_signs, to_signs
from lit_mbldm.codecs.decoders import by_parts
from lit_mbldm.codecs.network_codec import frozen
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec

_BYTE = 8


class BinaryCodec(VectorQuantizedCodec):
    """A learned codec: a network makes c bits of each position, and images of the bits.

    Its vectors, (B, h, w, c), are the bits' expectations tanh(logit/2) in [-1, 1]. A code is eight
    bits, the highest first: `BitLatent` in natural order has the network's own. All codebooks are
    the 256 patterns of eight ±1. Images are no affine function of the vectors.

    Source: Wang et al. 2023, arXiv 2304.04820, section 3.1; encoded by threshold.

    Args:
        network: with the attributes `bits` and `patch_size`, and the methods `encode` and `decode`
            of `lit_mbldm.denoisers.ConvAutoencoder`. A copy is kept, its weights as buffers.
    """

    patterns: Tensor  # (256, 8)

    def __init__(self, network: nn.Module) -> None:
        sizes: Any = network
        super().__init__(f"BINARY-{sizes.bits}", sizes.patch_size, 2**_BYTE)
        self.num_bits: int = sizes.bits
        self.network: Any = frozen(network)
        patterns = to_signs(torch.arange(2**_BYTE), _BYTE)
        self.register_buffer("patterns", patterns, persistent=False)

    @property
    def code_names(self) -> list[str]:
        """`B0`, `B1` and so on, a byte each."""
        return [f"B{s}" for s in range(self.num_bits // _BYTE)]

    def codebooks(self) -> list[Tensor]:
        """S times the 256 patterns (256, 8) of ±1."""
        return [self.patterns] * self.num_codes

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into expected bits (B, h, w, c)."""
        logits = by_parts(lambda x: self.network.encode(x / 255), images, images.shape[2:])
        return (logits / 2).tanh().movedim(1, -1)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Read the codes (Bhw, S) uint8 of the signs of vectors (B, h, w, c)."""
        return from_signs(vectors.flatten(0, 2).unflatten(1, (-1, _BYTE))).to(torch.uint8)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Join S (possibly soft) codewords (B, h, w, 8) into vectors (B, h, w, c)."""
        return torch.cat(codewords, dim=-1)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Cut vectors (B, h, w, c) into S parts (B, h, w, 8)."""
        return list(vectors.split(_BYTE, dim=-1))

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors (B, h, w, c) into images (B, 3, H, W) float RGB."""
        size = [self.patch_size * side for side in vectors.shape[1:3]]
        return 255 * by_parts(self.network.decode, vectors.movedim(-1, 1), size)
