"""What the data needs of a codec."""

from typing import Protocol

from torch import Tensor


class Codec(Protocol):
    """What the data needs of a codec; every `lit_mbldm.codecs.ImageCodec` is one."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the codec's arrays."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to uint8 (B, S, h, w)."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(S, h, w); raises InputError for a size that does not fit."""
