"""The bits of a codec's codes as a latent.

B samples, S code channels, n = log2 K bits a code, h×w positions.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError, check_choice

BitOrder = Literal["natural", "gray"]


def bits_a_code(codebook_size: int) -> int:
    """log2 of the codebook size; raises InputError for no power of two from 2 to 256."""
    bits = codebook_size.bit_length() - 1
    if not 2 <= codebook_size <= 256 or codebook_size != 1 << bits:
        raise InputError(
            f"codebook_size must be a power of two from 2 to 256, not {codebook_size}."
        )
    return bits


def count_codes(bits: int, codebook_size: int, name: str) -> int:
    """How many codes make so many bits; raises InputError where none do, of the codec `name`."""
    step = bits_a_code(codebook_size)
    if bits == 0 or bits % step:
        raise InputError(
            f"Bits must be positive multiples of {step} (one codebook of {codebook_size} codewords"
            f" each), got {name!r}."
        )
    return bits // step


def to_signs(numbers: Tensor, num_bits: int) -> Tensor:
    """The n bits of integers (...) as ±1, the highest first: (..., n) float32."""
    shifts = torch.arange(num_bits - 1, -1, -1, device=numbers.device)
    return (numbers.long()[..., None] >> shifts & 1).float() * 2 - 1


def from_signs(signs: Tensor) -> Tensor:
    """The integers (...) int64 whose bits are 1 where numbers (..., n) are positive."""
    weights = 2 ** torch.arange(signs.shape[-1] - 1, -1, -1, device=signs.device)
    return ((signs > 0) * weights).sum(-1)


class BitLatent(Latent):
    """The bits of each code as ±1, n channels a code, the highest bit first.

    Args:
        order: `natural`, the bits of the index, or `gray`, those of index XOR index/2, of which
            neighbouring indices differ in one.

    Raises:
        InputError: another order.
    """

    meaning: ClassVar[tuple[str, ...]] = ("order",)

    def __init__(self, order: BitOrder = "natural") -> None:
        super().__init__()
        check_choice(BitOrder, order=order)
        self.order = order

    def use(self, codec: ImageCodec) -> None:
        """Take the number of bits a code; raises InputError for codes of no whole bits."""
        super().use(codec)
        self.num_bits = bits_a_code(codec.codebook_size)

    def num_channels(self, num_codes: int) -> int:
        """S·n."""
        return num_codes * self.num_bits

    def to_latent(self, codes: Tensor, images: Tensor | None = None) -> Tensor:
        """Turn codes (B, S, h, w) in [0, K-1] into their bits, (B, S·n, h, w) of ±1, float32."""
        numbers = codes.long()
        if self.order == "gray":
            numbers = numbers ^ numbers >> 1
        return to_signs(numbers, self.num_bits).movedim(-1, 2).flatten(1, 2)

    def to_codes(self, z0: Tensor) -> Tensor:
        """Read the bits that are positive in z_0 (B, S·n, h, w): (B, S, h, w) uint8."""
        numbers = from_signs(z0.unflatten(1, (-1, self.num_bits)).movedim(2, -1))
        if self.order == "gray":
            for shift in (4, 2, 1):  # each bit becomes the parity of those from it up
                numbers = numbers ^ numbers >> shift
        return numbers.to(torch.uint8)
