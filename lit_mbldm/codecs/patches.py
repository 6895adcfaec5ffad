"""Colours and patches: images to patches, and back.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, D = s² numbers a patch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.errors import InputError

# ITU-R BT.601, full range, as in JFIF: Y, Cb and Cr from R, G and B.
RGB_TO_YCBCR = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.168735892, -0.331264108, 0.5],
        [0.5, -0.418687589, -0.081312411],
    ]
)
YCBCR_TO_RGB = torch.tensor(
    [[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]]
)
# Y is centred as well as the chroma, so that every channel lies in [-128, 128).
LEVEL = 128.0
MAX_SIDE, MAX_PATCH = 1 << 16, 256  # pixels
_HINT = (
    "lit_mbldm.pictures.to_batch makes it of files, Pillow images and arrays, be they grey, RGB or"
    " RGBA."
)


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """Convert RGB to level-shifted YCbCr (JFIF, before any rounding).

    Args:
        images: (B, 3, H, W), uint8 or float, range [0, 255].

    Returns:
        (B, 3, H, W) float32; Y - 128, Cb and Cr, each in [-128, 127].
    """
    flat = images.flatten(2).to(torch.float32)  # (B, 3, HW)
    ycbcr = (RGB_TO_YCBCR.to(flat.device) @ flat).view(images.shape)
    ycbcr[:, 0] -= LEVEL
    return ycbcr


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Invert `rgb_to_ycbcr`; neither rounds nor clips.

    Args:
        ycbcr: (B, 3, H, W) float; Y - 128, Cb and Cr.

    Returns:
        (B, 3, H, W) float RGB, nominal range [0, 255].
    """
    rgb = (YCBCR_TO_RGB.to(ycbcr) @ ycbcr.flatten(2)).view(ycbcr.shape)
    return rgb + LEVEL


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Cut each channel into non-overlapping square patches.

    Args:
        images: (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: side s of a patch in pixels.

    Returns:
        (C, B, h, w, s²), rows of a patch one after another.
    """
    cut = images.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))  # (B, C, h, s, w, s)
    return cut.permute(1, 0, 2, 4, 3, 5).flatten(-2)  # (C, B, h, w, s²)


def from_patches(patches: Tensor, patch_size: int) -> Tensor:
    """Invert `to_patches`.

    Args:
        patches: (C, B, h, w, s²).
        patch_size: side s of a patch in pixels.

    Returns:
        (B, C, h·s, w·s).
    """
    C, B, h, w, D = patches.shape
    channels = patches.permute(1, 0, 4, 2, 3).reshape(B, C * D, h, w)
    return F.pixel_shuffle(channels, patch_size)  # (B, C, hs, ws)


def to_joint_patches(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into non-overlapping square patches of all channels together.

    Args:
        images: (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: side s of a patch in pixels.

    Returns:
        (B, h, w, C·s²), channel by channel, rows one after another.
    """
    cut = images.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))  # (B, C, h, s, w, s)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(-3)  # (B, h, w, C·s²)


def from_joint_patches(patches: Tensor, patch_size: int) -> Tensor:
    """Invert `to_joint_patches`.

    Args:
        patches: (B, h, w, C·s²).
        patch_size: side s of a patch in pixels.

    Returns:
        (B, C, h·s, w·s).
    """
    return F.pixel_shuffle(patches.permute(0, 3, 1, 2), patch_size)


def overlapping_patches(images: Tensor, patch_size: int, positions: Tensor) -> Tensor:
    """Pick patches at stride 1 by their flat position.

    Args:
        images: (B, C, H, W).
        patch_size: side s of a patch in pixels.
        positions: (N,) int64 in [0, B·(H-s+1)·(W-s+1)): image, then row, then column.

    Returns:
        (C, N, s²).
    """
    _, C, H, W = images.shape
    rows, columns = H - patch_size + 1, W - patch_size + 1
    b, rest = positions // (rows * columns), positions % (rows * columns)
    y, x = rest // columns, rest % columns
    span = torch.arange(patch_size)
    picked = images[
        b[:, None, None], :, (y[:, None] + span)[:, :, None], (x[:, None] + span)[:, None, :]
    ]  # (N, s, s, C)
    return picked.permute(3, 0, 1, 2).reshape(C, len(positions), patch_size**2)


def describe_value(value: object) -> str:
    """Say what came in place of a tensor: its dtype and shape, or its type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__module__}.{type(value).__qualname__}"


def check_images(images: Tensor) -> None:
    """Raise InputError for what is no tensor of uint8 RGB of shape (B, 3, H, W)."""
    fits = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 3
    if not fits or images.dtype != torch.uint8:
        raise InputError(
            "Expected a tensor of uint8 RGB images of shape (B, 3, H, W), got"
            f" {describe_value(images)}. {_HINT}"
        )


def check_codes(codes: Tensor, num_codes: int, codebook_size: int, quantizer: str) -> None:
    """Raise InputError for what is no tensor of a codec's codes of shape (B, S, h, w)."""
    fits = isinstance(codes, Tensor) and codes.ndim == 4 and codes.shape[1] == num_codes
    if not fits or codes.is_floating_point():
        raise InputError(
            f"Expected a tensor of integer codes of shape (B, {num_codes}, h, w) for {quantizer},"
            f" got {describe_value(codes)}. An array becomes one by torch.from_numpy."
        )
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise InputError(
            f"Codes must lie in [0, {codebook_size - 1}], got"
            f" [{int(codes.min())}, {int(codes.max())}]."
        )


def check_image_size(height: int, width: int, patch_size: int) -> None:
    """Raise InputError unless both sides are positive multiples of the patch size."""
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise InputError(
            f"The sides of an image must be from 1 to {MAX_SIDE:,} pixels, got {height}×{width}."
        )
    if height % patch_size == 0 and width % patch_size == 0:
        return
    down = [max(side // patch_size, 1) * patch_size for side in (height, width)]
    up = [-(-side // patch_size) * patch_size or patch_size for side in (height, width)]
    raise InputError(
        f"The codec cuts images into {patch_size}×{patch_size} patches, so both sides must be"
        f" multiples of {patch_size}; this image is {height}×{width}. Crop it to"
        f" {down[0]}×{down[1]} or resize it to {up[0]}×{up[1]}"
        " (`lit-mbldm shards --size` and the data modules' `image_size` do)."
    )
