"""NetworkCodec: a codec around another, whose decoded images a network improves."""

import copy
from typing import Any

from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec, fingerprint_arrays
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError


class NetworkCodec(VectorQuantizedCodec):
    """A codec with the codes of another and images of its own; the base of learned decoders.

    Codes and their fingerprint stay those of the codec: code shards serve both, and a model of one
    decodes with the other as its `codec`. `reconstruct` and `decode_soft` go without the network,
    `codeword_error` takes images as `restore` makes them.

    Args:
        codec: with codebooks.
        network: a copy is kept, its weights as buffers.
        suffix: of the codec's name.

    Raises:
        InputError: a codec without codebooks.
    """

    def __init__(self, codec: ImageCodec, network: nn.Module, suffix: str) -> None:
        super().__init__(codec.quantizer, codec.patch_size, codec.codebook_size)
        if not isinstance(codec, VectorQuantizedCodec):
            raise InputError(
                f"A learned decoder needs a codec with codebooks, got a {type(codec).__name__}."
            )
        self.quantizer = f"{codec.quantizer}+{suffix}"
        self.codec = codec
        self.network: Any = copy.deepcopy(network)
        freeze(self.network)

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
        """sha256 (hex) of the codec's image fingerprint and the network's arrays."""
        return fingerprint_arrays(self.codec.image_fingerprint, self.network.state_dict())

    def codebooks(self) -> list[Tensor]:
        """The codec's codebooks."""
        return self.codec.codebooks()

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

    def decode(
        self, codes: Tensor, size: tuple[int, int] | None = None, plain: bool = False
    ) -> Tensor:
        """Decode codes to images, through the network unless `plain`. As `ImageCodec.decode`."""
        return self.codec.decode(codes, size) if plain else super().decode(codes, size)


def freeze(network: nn.Module) -> None:
    """Turn a network's parameters into buffers, which no averaging of weights touches."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
