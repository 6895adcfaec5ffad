"""Learned codecs: the numbers of a trained autoencoder as codes.

B images, H×W pixels, h×w positions of c numbers, d of them a code, S = c/d codes a position.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.bits import from_signs, to_signs
from lit_mbldm.codecs.decoders import by_parts
from lit_mbldm.codecs.network_codec import freeze
from lit_mbldm.codecs.sizes import is_above, resize
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec

_BITS = 8  # of a code
_LEVELS = 2**_BITS


class LearnedCodec(VectorQuantizedCodec):
    """A codec whose vectors, (B, h, w, c) in [-1, 1], and images are a network's.

    Images are no affine function of the vectors. All codebooks are the same.

    Args:
        kind: the first part of the codec's name; bits a position follow.
        network: with `patch_size`, `encode` and `decode` as of `ConvAutoencoder` or
            `ImplicitAutoencoder` in `lit_mbldm.denoisers`. A copy is kept, its weights as buffers.
        num_codes: codes S a position.
        codewords: (256, d), what the codes stand for.
    """

    codewords: Tensor  # (256, d)

    def __init__(self, kind: str, network: nn.Module, num_codes: int, codewords: Tensor) -> None:
        copied: Any = copy.deepcopy(network)
        freeze(copied)
        super().__init__(f"{kind}-{_BITS * num_codes}", copied.patch_size, _LEVELS)
        self.network = copied
        self._names = [f"{kind[0]}{s}" for s in range(num_codes)]
        self.register_buffer("codewords", codewords, persistent=False)

    @property
    def code_names(self) -> list[str]:
        """The first letter of the kind, and a number."""
        return self._names

    def codebooks(self) -> list[Tensor]:
        """S times the codewords."""
        return [self.codewords] * self.num_codes

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into vectors (B, h, w, c), tanh of half the logits."""
        logits = by_parts(lambda x: self.network.encode(x / 255), images, images.shape[2:])
        return (logits / 2).tanh().movedim(1, -1)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Join S (possibly soft) codewords (B, h, w, d) into vectors (B, h, w, c)."""
        return torch.cat(codewords, dim=-1)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Cut vectors (B, h, w, c) into S parts (B, h, w, d)."""
        return list(vectors.split(self.codewords.shape[1], dim=-1))

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors (B, h, w, c) into images (B, 3, H, W) float RGB."""
        size = [self.patch_size * side for side in vectors.shape[1:3]]
        return 255 * by_parts(self.network.decode, vectors.movedim(-1, 1), size)


class BinaryCodec(LearnedCodec):
    """A learned codec of bits: its vectors are the bits' expectations, a code is eight of them.

    The highest bit comes first: `BitLatent` in natural order has the network's own.

    Source: Wang et al. 2023, arXiv 2304.04820, section 3.1; encoded by threshold.

    Args:
        network: a `lit_mbldm.denoisers.ConvAutoencoder`, with the attribute `bits`.
    """

    def __init__(self, network: nn.Module) -> None:
        bits: Any = network.bits
        super().__init__("BINARY", network, bits // _BITS, to_signs(torch.arange(_LEVELS), _BITS))

    def quantize(self, vectors: Tensor) -> Tensor:
        """Read the codes (Bhw, S) uint8 of the signs of vectors (B, h, w, c)."""
        return from_signs(vectors.flatten(0, 2).unflatten(1, (-1, _BITS))).to(torch.uint8)


class ScalarCodec(LearnedCodec):
    """A learned codec of numbers, 256 even levels in [-1, 1] each, whose images have any size.

    An `IndexLatent` of it has the network's own numbers. To sizes above its own it decodes by the
    network, to smaller ones by antialiased bicubic interpolation.

    Source: Kim & Kim 2024, arXiv 2403.10255, section 3.1; rounded as in Mentzer et al. 2023 (finite
    scalar quantization, 2309.15505).

    Args:
        network: a `lit_mbldm.denoisers.ImplicitAutoencoder`, with the attribute `channels`.
    """

    def __init__(self, network: nn.Module) -> None:
        channels: Any = network.channels
        super().__init__("SCALAR", network, channels, torch.linspace(-1, 1, _LEVELS)[:, None])

    def quantize(self, vectors: Tensor) -> Tensor:
        """Round vectors (B, h, w, c) to codes (Bhw, c) uint8."""
        return ((vectors + 1) / 2 * (_LEVELS - 1)).round().to(torch.uint8).flatten(0, 2)

    def enlarge(
        self,
        images: Tensor,
        vectors: Tensor,
        size: tuple[int, int] | None,
        progress: bool = False,
    ) -> Tensor:
        """Draw images of a larger size from the vectors, as of `ImageCodec.enlarge`."""
        (H, W), p = images.shape[2:], self.patch_size
        if not is_above(size, (H, W)):
            return resize(images, size)
        return 255 * by_parts(
            lambda x: self.network.decode(x, size, (H / p, W / p)), vectors.movedim(-1, 1), size
        )
