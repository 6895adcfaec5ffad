"""Fitting a codec of any kind by its name."""

from collections.abc import Sequence

from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.fitting.joint import fit_joint_codec
from lit_mbldm.codecs.fitting.quantizers import fit_patch_codec


def fit_codec(
    images: Sequence[Tensor],
    quantizer: str,
    *,
    patch_size: int = 8,
    max_patches: int,
    seed: int = 0,
) -> ImageCodec:
    """Fit a codec on overlapping patches of images and of their vertical flips.

    Args:
        images: uint8 RGB tensors (3, H, W), sizes may differ.
        quantizer: `JPQ-{bits}` or `{VQ|PQ|OPQ|RQ}-{Y-Cb-Cr}`.
        patch_size: side of a patch in pixels.
        max_patches: patches drawn at random.
        seed: of the draw and of k-means.

    Raises:
        InputError: fewer patches than codewords, or a bad quantiser name.
    """
    fit = fit_joint_codec if quantizer.upper().startswith("JPQ") else fit_patch_codec
    return fit(images, quantizer, patch_size=patch_size, max_patches=max_patches, seed=seed)
