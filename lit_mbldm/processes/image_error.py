"""The distance of softly decoded images from their target, measured on patches."""

import torch
from torch import Tensor

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.codecs.patches import YCBCR_TO_RGB, rgb_to_ycbcr, to_patches
from lit_mbldm.errors import InputError


def image_error(codec: PatchCodec, codewords: list[Tensor], target: Tensor) -> Tensor:
    """Mean squared RGB error of softly decoded patches, x in [-1, 1].

    Measured before patches are put in place, and without clipping: equal to the distance of
    images, for rotations are orthogonal and patches do not overlap.

    Args:
        codec: the codec.
        codewords: S soft codewords (B, h, w, d).
        target: (3, B, h, w, s²) YCbCr patches.

    Returns:
        (B,) float32.
    """
    ycbcr = codec.assemble(codewords) - target
    rgb = torch.einsum("rc,cbhwd->rbhwd", YCBCR_TO_RGB.to(ycbcr), ycbcr) / 127.5
    return rgb.square().mean(dim=(0, 2, 3, 4))


def original_patches(codec: PatchCodec, images: Tensor | None) -> Tensor:
    """Photographs as the target of `image_error`.

    Args:
        codec: the codec.
        images: (B, 3, H, W) uint8 RGB, or None where the data holds codes alone.

    Returns:
        (3, B, h, w, s²) YCbCr patches, float32.

    Raises:
        InputError: no images.
    """
    if images is None:
        raise InputError(
            "image_target: original compares with the photographs, but the batches hold codes"
            " alone. Train on image shards, or use image_target: decoded."
        )
    return to_patches(rgb_to_ycbcr(images), codec.patch_size)
