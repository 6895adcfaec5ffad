"""PatchCodec: every channel of a patch quantised on its own.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, S code channels, K codewords.
"""

import re
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.bits import bits_a_code, count_codes
from lit_mbldm.codecs.patches import (
    YCBCR_TO_RGB,
    from_patches,
    rgb_to_ycbcr,
    to_patches,
    ycbcr_to_rgb,
)
from lit_mbldm.codecs.vector_quantized import (
    Codebook,
    ProductCodebook,
    ResidualCodebook,
    VectorQuantizedCodec,
)
from lit_mbldm.errors import InputError


def read_quantizer(name: str, codebook_size: int) -> tuple[str, list[int]]:
    """Read a name such as `OPQ-32-8-8`, in any case: its kind, and the codes of each channel.

    Raises InputError for an unknown kind, or bits that do not make whole codes.
    """
    match = re.fullmatch(r"(VQ|PQ|OPQ|RQ)-(\d+)-(\d+)-(\d+)", name.upper())
    if match is None:
        raise InputError(
            f"Expected a quantiser {{VQ|PQ|OPQ|RQ}}-{{Y-Cb-Cr bits a patch}} such as OPQ-32-8-8, or"
            f" JPQ-{{bits a patch}} such as JPQ-48, got {name!r}."
        )
    counts = [count_codes(int(bits), codebook_size, name) for bits in match.groups()[1:]]
    if match[1] == "VQ" and counts != [1, 1, 1]:
        raise InputError(f"VQ has one codebook a channel: use PQ, OPQ or RQ, got {name!r}.")
    return match[1], counts


class PatchCodec(VectorQuantizedCodec):
    """A classical codec of image patches: YCbCr, then vector quantisation of each channel.

    Filled by `lit_mbldm.codecs.fitting.quantizers.fit_patch_codec` or by
    `lit_mbldm.zoo.load_pretrained`. Its vectors are YCbCr patches (3, B, h, w, s²).

    Source: Scribano et al., Algorithms 2023, 16, 501, sections 3.1 and 3.2.2.

    Args:
        quantizer: `{VQ|PQ|OPQ|RQ}-{Y-Cb-Cr}`, bits a patch for each channel.
        patch_size: side s of a patch in pixels.
        codebook_size: codewords K in every codebook, a power of two up to 256.

    Raises:
        InputError: a bad name, or more bits than the pixels have.
    """

    def __init__(
        self, quantizer: str = "OPQ-32-8-8", patch_size: int = 8, codebook_size: int = 256
    ) -> None:
        kind, splits = read_quantizer(quantizer, codebook_size)
        super().__init__(quantizer, patch_size, codebook_size)
        self.splits = splits
        if max(splits) * bits_a_code(codebook_size) > 8 * patch_size**2:
            raise InputError(
                f"A channel of a patch of {patch_size}×{patch_size} pixels has {8 * patch_size**2}"
                f" bits itself: {quantizer} saves none. Use fewer bits or larger patches."
            )
        channels: list[Codebook] = []
        for num in splits:
            if kind == "RQ":
                channels.append(ResidualCodebook(patch_size**2, num, codebook_size))
            else:
                rotated = kind == "OPQ" and num > 1
                channels.append(ProductCodebook(patch_size**2, num, codebook_size, rotated))
        self.channels = cast(Sequence[Codebook], nn.ModuleList(channels))
        self.requires_grad_(False)

    @property
    def code_names(self) -> list[str]:
        """The channel of each code, with a number where a channel has several: `Y0`, `Cb`."""
        return [
            f"{channel}{m}" if count > 1 else channel
            for channel, count in zip(("Y", "Cb", "Cr"), self.splits, strict=True)
            for m in range(count)
        ]

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        return [codebook for channel in self.channels for codebook in channel.codewords]

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into YCbCr patches (3, B, h, w, s²)."""
        return to_patches(rgb_to_ycbcr(images), self.patch_size)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of YCbCr patches (3, B, h, w, s²)."""
        patches = vectors.flatten(1, 3)
        parts = [channel.encode(x) for channel, x in zip(self.channels, patches, strict=True)]
        return torch.cat(parts, dim=1)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S codewords (B, h, w, d) into YCbCr patches (3, B, h, w, s²)."""
        patches, start = [], 0
        for channel, count in zip(self.channels, self.splits, strict=True):
            patches.append(channel.assemble(codewords[start : start + count]))
            start += count
        return torch.stack(patches)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Turn YCbCr patches (3, B, h, w, s²) into S parts (B, h, w, d)."""
        pairs = zip(self.channels, vectors, strict=True)
        return [part for channel, x in pairs for part in channel.split(x)]

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn YCbCr patches (3, B, h, w, s²) into images (B, 3, H, W) float RGB."""
        return ycbcr_to_rgb(from_patches(vectors, self.patch_size))

    def codeword_error(
        self, codewords: list[Tensor], codes: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """As `VectorQuantizedCodec.codeword_error`, measured on YCbCr patches.

        That is the distance of images, for rotations are orthogonal and patches do not overlap.
        """
        target = self.look_up(codes) if images is None else self.to_vectors(images)
        ycbcr = self.assemble(codewords) - target
        rgb = torch.einsum("rc,cbhwd->rbhwd", YCBCR_TO_RGB.to(ycbcr), ycbcr) / 127.5
        return rgb.square().mean(dim=(0, 2, 3, 4))
