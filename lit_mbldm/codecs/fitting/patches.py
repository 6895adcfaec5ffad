"""Drawing the patches that codecs are fitted on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_mbldm.errors import InputError


def draw_patches(
    images: Sequence[Tensor], side: int, max_patches: int, codebook_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw uniformly from all overlapping patches of images and of their vertical flips.

    Args:
        images: uint8 RGB tensors (3, H, W), sizes may differ.
        side: of a patch in pixels.
        max_patches: drawn without repetition.
        codebook_size: codewords to fit on them, which need as many patches.
        seed: of the draw.

    Yields:
        Each image and flipped image (3, H, W), and the flat positions of its patches, int64, as
        `overlapping_patches` takes them.

    Raises:
        InputError: no image is as large as a patch, or there are fewer patches than codewords.
    """
    counts = [_num_positions(image, side) for image in images for _ in range(2)]
    total = sum(counts)
    if total == 0:
        raise InputError(
            f"No image is as large as one {side}×{side} patch, so there is nothing to"
            " fit. Give larger images."
        )
    if min(max_patches, total) < codebook_size:
        raise InputError(
            f"Fitting {codebook_size} codewords needs at least as many patches, the images hold"
            f" {min(max_patches, total)}. Give more or larger images."
        )
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(total, size=min(max_patches, total), replace=False, shuffle=False))
    starts = np.cumsum([0, *counts])
    flipped = (image.flip(1) if flip else image for image in images for flip in (False, True))
    for image, own, start in zip(
        flipped, np.split(drawn, np.searchsorted(drawn, starts[1:-1])), starts, strict=False
    ):
        yield image, torch.from_numpy(own - start)


def _num_positions(image: Tensor, side: int) -> int:
    """Overlapping patches of one image (3, H, W)."""
    height, width = image.shape[1:]
    return max(height - side + 1, 0) * max(width - side + 1, 0)
