"""DecoderCodec: a codec whose decoded images a small network improves."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec, fingerprint_arrays, full_float32, resize, to_uint8
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError

_PIXELS = 2**21  # at once: eight images of 512×512


class DecoderCodec(VectorQuantizedCodec):
    """A codec with a learned decoder: its codes are the codec's, its images a network's.

    The network sees what the codec decodes, neighbouring patches included, and takes the grid of
    patches out. Codes and their fingerprint stay those of the codec: code shards serve both, and a
    model of one decodes with the other as its `codec`. `reconstruct` and `decode_soft` go without
    the network.

    Args:
        codec: without a learned decoder.
        network: from images to images, (B, 3, H, W) float RGB in [0, 1], such as that of a
            `lit_mbldm.training.Refiner` trained without noise. A copy is kept, its weights as
            buffers.

    Raises:
        InputError: a codec that has a decoder already, or no codebooks.
    """

    def __init__(self, codec: ImageCodec, network: nn.Module) -> None:
        super().__init__(codec.quantizer, codec.patch_size, codec.codebook_size)
        if isinstance(codec, DecoderCodec):
            raise InputError(
                f"{codec.quantizer} has a learned decoder already. Give the codec without one, and"
                " a network trained on what that decodes."
            )
        if not isinstance(codec, VectorQuantizedCodec):
            raise InputError(
                f"A learned decoder needs a codec with codebooks, got a {type(codec).__name__}."
            )
        self.quantizer = f"{codec.quantizer}+decoder"
        self.codec = codec
        self.network = frozen(network)

    def codebooks(self) -> list[Tensor]:
        """The codec's codebooks."""
        return self.codec.codebooks()

    @property
    def code_names(self) -> list[str]:
        """The codec's names of code channels."""
        return self.codec.code_names

    @property
    def halo(self) -> int:
        """The codec's."""
        return self.codec.halo

    @property
    def fingerprint(self) -> str:
        """The codec's: the network changes no code's meaning."""
        return self.codec.fingerprint

    @property
    def image_fingerprint(self) -> str:
        """sha256 (hex) of the codec's fingerprint and the network's arrays."""
        return fingerprint_arrays(self.codec.fingerprint, self.network.state_dict())

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images into vectors as the codec does."""
        return self.codec.to_vectors(images)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Find the codes of vectors as the codec does."""
        return self.codec.quantize(vectors)

    def find_codes(self, images: Tensor) -> Tensor:
        """Find the codes of images as the codec does."""
        return self.codec.find_codes(images)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn codewords into vectors as the codec does."""
        return self.codec.assemble(codewords)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Turn vectors into what codewords stand for as the codec does."""
        return self.codec.split(vectors)

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors into images as the codec does."""
        return self.codec.to_images(vectors)

    def image_error(self, codewords: list[Tensor], target: Tensor) -> Tensor:
        """Mean squared RGB error of images as the codec decodes them."""
        return self.codec.image_error(codewords, target)

    def decode(
        self, codes: Tensor, size: tuple[int, int] | None = None, plain: bool = False
    ) -> Tensor:
        """Decode codes to images, through the network unless `plain`. As `ImageCodec.decode`."""
        if plain:
            return self.codec.decode(codes, size)
        return self._improved(self.codec.decode(codes), size)

    def decode_vectors(self, vectors: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Decode vectors to images, through the network. As `ImageCodec.decode_vectors`."""
        return self._improved(self.codec.decode_vectors(vectors), size)

    def _improved(self, images: Tensor, size: tuple[int, int] | None) -> Tensor:
        with full_float32(images.device):
            images = improve(self.network, images)
        return images if size is None else to_uint8(resize(images.float(), size))


def frozen(network: nn.Module) -> nn.Module:
    """Copy a network with buffers for parameters, which averaging of weights would round."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return copied


def improve(network: nn.Module, images: Tensor) -> Tensor:
    """Pass images through a network, in evaluation mode and a few at a time.

    Args:
        network: from and to (B, 3, H, W) float RGB in [0, 1].
        images: (B, 3, H, W) uint8 RGB.

    Returns:
        (B, 3, H, W) uint8 RGB.
    """
    if not len(images):
        return images.clone()

    def improved(part: Tensor) -> Tensor:
        return to_uint8(255 * network(part / 255).float())

    training = network.training
    network.eval()
    try:
        return by_parts(improved, images, images.shape[2:])
    finally:
        network.train(training)


def by_parts(function: Callable[[Tensor], Tensor], x: Tensor, size: Sequence[int]) -> Tensor:
    """Apply a function to the rows of x, a few at a time, each of an image of this (H, W)."""
    parts = x.split(max(1, _PIXELS // math.prod(size)))
    return torch.cat([function(part) for part in parts])
