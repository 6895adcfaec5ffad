"""ImplicitCodec: a codec that decodes to sizes above its own with a network.

B images, H×W pixels decoded, h×w positions of S codes, D numbers a position.
"""

from itertools import product

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.network_codec import NetworkCodec, freeze
from lit_mbldm.codecs.sizes import Tile, is_above, resize, tiles
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError

_TILE = 512  # side in decoded pixels
_DRAWN = 2**18  # pixels of the larger image at once


class ImplicitCodec(NetworkCodec):
    """A codec with an implicit decoder: one set of codes, images of any size.

    To sizes above its own it decodes by antialiased bicubic interpolation and adds what a network
    draws there from decoded pixels and codes together; at its own size and below, images are those
    of the codec. `plain` decodes without the network, with that of a `DecoderCodec`. Works in
    tiles, and gradients pass through `enlarge`.

    Args:
        codec: without an implicit decoder; with a learned one, if any.
        network: a `lit_mbldm.denoisers.ImplicitNetwork`. A copy is kept, its weights as buffers.

    Raises:
        InputError: a codec that has an implicit decoder already, or no codebooks.
    """

    def __init__(self, codec: ImageCodec, network: nn.Module) -> None:
        if isinstance(codec, ImplicitCodec):
            raise InputError(f"{codec.quantizer} has an implicit decoder already: give its codec.")
        super().__init__(codec, network, "scale")
        self.network.set_code_channels(sum(book.shape[1] for book in self.codebooks()))
        freeze(self.network)  # the layers that set_code_channels made

    def restore(self, vectors: Tensor, progress: bool = False) -> Tensor:
        """Turn vectors into images of the codec's size as the codec does."""
        return self.codec.restore(vectors, progress)

    def codeword_error(
        self, codewords: list[Tensor], codes: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """The codec's, at its size."""
        return self.codec.codeword_error(codewords, codes, images)

    def enlarge(
        self,
        images: Tensor,
        vectors: Tensor,
        size: tuple[int, int] | None,
        progress: bool = False,
    ) -> Tensor:
        """Interpolate, and above the codec's size add the network's correction, tile by tile."""
        H, W = images.shape[2:]
        if not is_above(size, (H, W)):
            return resize(images, size)
        enlarged = resize(images, size)
        numbers, p = code_numbers(self.codec, vectors), self.patch_size
        step = 2 * p  # tiles begin at whole patches, and at blocks of 2×2 pixels
        margin = -(-self.network.margin // step) * step
        parts = [*tiles(H, W, max(_TILE // step, 1) * step, margin)]
        count = max(1, _TILE**2 // (H * W))  # images at once
        work = [*product(range(0, len(images), count), parts)]
        bar = tqdm(work, desc="enlarging", unit="tile", disable=not progress)
        for first, tile in bar:
            some = slice(first, first + count)
            codes = numbers[some, :, *(slice(o.start // p, -(-o.stop // p)) for o in tile.outer)]
            features = self.network.encode(images[some, :, *tile.outer] / 255, codes, p)
            self._add(enlarged[some], features, (H, W), tile)
        return enlarged

    def _add(self, enlarged: Tensor, features: Tensor, sides: tuple[int, int], tile: Tile) -> None:
        """Add a tile's correction to the enlarged images, a strip of rows at a time."""
        size = (enlarged.shape[2], enlarged.shape[3])
        origin = (tile.outer[0].start, tile.outer[1].start)
        rows, columns = (
            slice(*(_first_pixel(a, *lengths) for a in (part.start, part.stop)))
            for part, *lengths in zip(tile.inner, sides, size, strict=True)
        )
        count = max(1, _DRAWN // (len(enlarged) * (columns.stop - columns.start)))
        for top in range(rows.start, rows.stop, count):
            strip = slice(top, min(top + count, rows.stop))
            drawn = self.network.render(features, sides, origin, size, strip, columns)
            enlarged[:, :, strip, columns] += 255 * drawn


def _first_pixel(pixel: int, side: int, size: int) -> int:
    """The first of `size` pixels whose centre lies in this one of `side` pixels, or after it."""
    return -((side - 2 * size * pixel) // (2 * side))


def code_numbers(codec: VectorQuantizedCodec, vectors: Tensor) -> Tensor:
    """The numbers behind codes, (B, D, h, w), those of each channel over its root mean square."""
    parts = [
        part / book.square().mean().sqrt()
        for part, book in zip(codec.split(vectors), codec.codebooks(), strict=True)
    ]
    return torch.cat(parts, dim=-1).movedim(-1, 1)
