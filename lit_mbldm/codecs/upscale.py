"""Upscaling: an image through a codec, and back at a larger size."""

import torch
from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.patches import check_images
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.sizes import check_enlarged, pad_to_multiple, to_uint8
from lit_mbldm.errors import InputError


@torch.inference_mode()
def upscale(
    codec: ImageCodec, image: Tensor, size: tuple[int, int], progress: bool = False
) -> Tensor:
    """Encode an image and decode it at a larger size; networks see large ones in tiles.

    Sides that are no multiples of a patch are padded by their last pixel, and cut again before the
    image is enlarged.

    Args:
        codec: any; an `ImplicitCodec` draws more than interpolation does, and so does a
            `ScalarCodec`, but without tiles.
        image: (3, H, W) uint8 RGB.
        size: (H', W'), at least (H, W).
        progress: show bars over tiles.

    Returns:
        (3, H', W') uint8 RGB.

    Raises:
        InputError: another shape or dtype, an image below a patch, or a size below the image or
            too large.
    """
    check_images(image[None])
    (H, W), p = image.shape[1:], codec.patch_size
    if min(H, W) < p:
        raise InputError(f"Expected an image of at least {p}×{p} pixels, a patch; got {H}×{W}.")
    check_enlarged((H, W), size)
    padded = pad_to_multiple(image[None].float(), p).byte()
    vectors = codec.check_and_look_up(codec.encode(padded))
    with full_float32(image.device):
        decoded = codec.restore(vectors, progress)[:, :, :H, :W]
        return to_uint8(codec.enlarge(decoded, vectors, size, progress))[0]
