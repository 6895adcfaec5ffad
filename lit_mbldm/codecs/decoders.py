"""DecoderCodec: a codec whose decoded images a small network improves."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.network_codec import NetworkCodec
from lit_mbldm.codecs.sizes import round_through, tiles
from lit_mbldm.errors import InputError

_PIXELS = 2**21  # at once: eight images of 512×512
_TILE, _MARGIN = 1024, 64  # pixels, of images that are larger


class DecoderCodec(NetworkCodec):
    """A codec with a learned decoder: its codes are the codec's, its images a network's.

    The network sees what the codec decodes, neighbouring patches included, and takes the grid of
    patches out. An image of more than two million pixels passes through it in overlapping tiles,
    whose group norms see the tile alone: its pixels differ a little from those of a whole pass.

    Args:
        codec: without a learned decoder.
        network: from images to images, (B, 3, H, W) float RGB in [0, 1], such as that of a
            `lit_mbldm.training.Refiner` trained without noise. A copy is kept, its weights as
            buffers.

    Raises:
        InputError: a codec that has a decoder already, or no codebooks.
    """

    def __init__(self, codec: ImageCodec, network: nn.Module) -> None:
        if isinstance(codec, NetworkCodec):
            raise InputError(
                f"{codec.quantizer} has a learned decoder already. Give the codec without one, and"
                " a network trained on what that decodes."
            )
        super().__init__(codec, network, "decoder")

    def restore(self, vectors: Tensor, progress: bool = False) -> Tensor:
        """Decode with the codec, rounded, and pass through the network. As `ImageCodec.restore`."""
        return improve(self.network, round_through(self.codec.restore(vectors)), progress)


def improve(network: nn.Module, images: Tensor, progress: bool = False) -> Tensor:
    """Pass images through a network, in evaluation mode, a few at a time or in tiles.

    Args:
        network: from and to (B, 3, H, W) float RGB in [0, 1].
        images: (B, 3, H, W) float RGB, nominal [0, 255].
        progress: show a bar over the tiles.

    Returns:
        (B, 3, H, W) float RGB, nominal [0, 255]; gradients pass.
    """
    if not len(images):
        return images.clone()

    def better(part: Tensor) -> Tensor:
        drawn: Tensor = 255 * network(part / 255).float()
        return drawn

    (H, W), training, improved = images.shape[2:], network.training, torch.empty_like(images)
    cut = tiles(H, W, _TILE, _MARGIN) if H * W > _PIXELS else tiles(H, W, max(H, W), 0)
    network.eval()
    try:
        for tile in tqdm([*cut], desc="decoding", unit="tile", disable=not progress):
            part = images[:, :, *tile.outer]
            made = by_parts(better, part, part.shape[2:])
            improved[:, :, *tile.inner] = made[:, :, *tile.kept]
    finally:
        network.train(training)
    return improved


def by_parts(function: Callable[[Tensor], Tensor], x: Tensor, size: Sequence[int]) -> Tensor:
    """Apply a function to the rows of x, a few at a time, each of an image of this (H, W)."""
    parts = x.split(max(1, _PIXELS // math.prod(size)))
    return torch.cat([function(part) for part in parts])
