"""SelfSSIM: whether one latent makes the same image at every size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.metrics.codec_quality import ssim


def self_ssim(images: Sequence[Tensor]) -> Tensor:
    """SSIM of the images of the same latents at N sizes, each pair at either size.

    Interpolation alone comes near 1, so that this says nothing without a score of each size's
    images, such as KID. Source: Kim & Kim 2024, arXiv 2403.10255, section 4.1.

    Args:
        images: N times (B, 3, H_i, W_i) uint8 RGB, sides of at least 7.

    Returns:
        (N, N) float32: of row i and column j the mean over the batch of the similarity of images
        i to images j, resized to the size of i by antialiased bicubic interpolation.

    Raises:
        InputError: images of too few pixels, or other numbers of them.

    Example:
        >>> image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        >>> self_ssim([image, image.repeat_interleave(2, 3)])
        tensor([[1., 1.],
                [1., 1.]])
    """
    rows = [[ssim(one, _resized(other, one)).mean() for other in images] for one in images]
    return torch.stack([torch.stack(row) for row in rows])


def _resized(images: Tensor, like: Tensor) -> Tensor:
    size = list(like.shape[2:])
    resized = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255).byte()
