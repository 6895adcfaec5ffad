"""Latents: codes read as numbers for a continuous model, and numbers back as codes.

B samples, S code channels, h×w positions, K codewords, d coordinates.
"""

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError


class Latent(nn.Module):
    """What a codec's codes are as numbers z_0 in [-1, 1]; the base of all latents."""

    def use(self, codec: ImageCodec) -> None:
        """Take over what depends on the codec."""

    def num_channels(self, num_codes: int) -> int:
        """Channels C of z_0 for S code channels."""
        raise NotImplementedError

    def to_latent(self, codes: Tensor) -> Tensor:
        """Turn codes (B, S, h, w) in [0, K-1] into z_0 (B, C, h, w), float32."""
        raise NotImplementedError

    def to_codes(self, z0: Tensor) -> Tensor:
        """Turn z_0 (B, C, h, w) of any values into the nearest codes (B, S, h, w) uint8."""
        raise NotImplementedError


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
        if self.codebook_size not in (None, codec.codebook_size):
            raise InputError(
                f"The latent has codebook_size {self.codebook_size}, the codec"
                f" {codec.codebook_size}: leave the latent's out."
            )
        self.num_codewords = codec.codebook_size

    def num_channels(self, num_codes: int) -> int:
        """S."""
        return num_codes

    def to_latent(self, codes: Tensor) -> Tensor:
        """Scale codes (B, S, h, w) in [0, K-1] to z_0 of the same shape, float32."""
        return codes.float() * (2 / (self.num_codewords - 1)) - 1

    def to_codes(self, z0: Tensor) -> Tensor:
        """Round z_0 to the nearest index, clamped to [0, K-1]: (B, S, h, w) uint8."""
        K = self.num_codewords
        return ((z0 + 1) * ((K - 1) / 2)).round().clamp(0, K - 1).to(torch.uint8)


class PrincipalLatent(Latent):
    """Where a codeword lies: its first d coordinates along its codebook's principal directions.

    Neighbours in this latent are neighbours in space, which neighbours by index are only along the
    first direction. z_0 has d channels a code; the code is that of the nearest codeword. Each
    codebook is scaled by one number to reach from -1 to 1.

    Args:
        coordinates: d, at most the numbers of a codeword.
        ranks: put the codewords' ranks along a direction in place of the coordinates; with
            d = 1 this is the index latent, for codecs sorted by their first direction.

    Raises:
        InputError: d that is not positive, or, when a codec is taken over, too large for it.
    """

    points: Tensor  # (S, K, d) of z_0

    def __init__(self, coordinates: int = 3, ranks: bool = False) -> None:
        super().__init__()
        if coordinates < 1:
            raise InputError(f"Expected at least 1 coordinate a code, got {coordinates}.")
        self.coordinates = coordinates
        self.ranks = ranks

    def use(self, codec: ImageCodec) -> None:
        """Find where the codec's codewords lie.

        Raises:
            InputError: a codec without codebooks, or with codewords of too few numbers.
        """
        if not isinstance(codec, VectorQuantizedCodec):
            raise InputError(
                f"A {type(self).__name__} needs a codec with codebooks, got a"
                f" {type(codec).__name__}."
            )
        books = codec.codebooks()
        smallest = min(book.shape[1] for book in books)
        if self.coordinates > smallest:
            raise InputError(
                f"The codewords of {codec.quantizer} have {smallest} numbers, too few for"
                f" coordinates: {self.coordinates}."
            )
        placed = [place_codewords(book, self.coordinates, self.ranks) for book in books]
        self.register_buffer("points", torch.stack(placed))

    def num_channels(self, num_codes: int) -> int:
        """S·d."""
        return num_codes * self.coordinates

    def to_latent(self, codes: Tensor) -> Tensor:
        """Place codes (B, S, h, w) in [0, K-1]: z_0 (B, S·d, h, w) float32, a code's d together."""
        placed = [book[codes[:, s].long()] for s, book in enumerate(self.points)]  # (B, h, w, d)
        return torch.cat([part.permute(0, 3, 1, 2) for part in placed], dim=1)

    def to_codes(self, z0: Tensor) -> Tensor:
        """Find the codewords nearest to z_0 (B, S·d, h, w): (B, S, h, w) uint8."""
        parts = z0.float().unflatten(1, (-1, self.coordinates)).movedim(2, -1)  # (B, S, h, w, d)
        nearest = [
            # matrix products would mix up codewords that lie close together
            torch.cdist(part.flatten(1, 2), book, compute_mode="donot_use_mm_for_euclid_dist")
            .argmin(2)
            .unflatten(1, part.shape[1:3])
            for part, book in zip(parts.unbind(1), self.points, strict=True)
        ]
        return torch.stack(nearest, dim=1).to(torch.uint8)


def place_codewords(codewords: Tensor, coordinates: int, ranks: bool = False) -> Tensor:
    """Coordinates along the principal directions of a codebook, within [-1, 1].

    Args:
        codewords: (K, D) float.
        coordinates: d of D.
        ranks: ranks along each direction, evenly spaced from -1 to 1, in place of distances.

    Returns:
        (K, d) float32, on the whole rising with the index.
    """
    centred = codewords.double() - codewords.double().mean(0)
    directions = torch.linalg.eigh(centred.mT @ centred).eigenvectors.flip(1)[:, :coordinates]
    along = centred @ directions  # (K, d)
    index = torch.linspace(-1, 1, len(codewords)).to(along)
    along = torch.where(index @ along < 0, -along, along)
    if ranks:
        places = along.argsort(dim=0, stable=True).argsort(0).double()
        return (2 * places / (len(codewords) - 1) - 1).float()
    farthest = along.abs().max().clamp_min(torch.finfo(torch.float64).tiny)  # 0: all are equal
    return (along / farthest).float()
