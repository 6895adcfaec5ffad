"""PatchCodec: images to codes and back, in torch.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, S code channels, K codewords.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.codebooks import Codebook, ProductCodebook, ResidualCodebook
from lit_mbldm.codecs.patches import (
    check_image_size,
    check_images,
    from_patches,
    rgb_to_ycbcr,
    to_patches,
    ycbcr_to_rgb,
)
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.errors import InputError

Kind = Literal["VQ", "PQ", "OPQ", "RQ"]


@dataclass(frozen=True)
class QuantizerName:
    """A parsed `{TYPE}-{Y-Cb-Cr}` name: the quantiser and the bits a patch of each channel."""

    kind: Kind
    bits: tuple[int, int, int]

    @classmethod
    def parse(cls, name: str, codebook_size: int = 256) -> "QuantizerName":
        """Read a name such as `OPQ-32-8-8`, in any case.

        Raises:
            InputError: an unknown type, or bits that are no positive multiple of log2 of the
                codebook size (8 for 256 codewords).
        """
        step = codebook_size.bit_length() - 1
        if not 2 <= codebook_size <= 256 or codebook_size != 1 << step:
            raise InputError(
                f"codebook_size must be a power of two from 2 to 256, not {codebook_size}."
            )
        match = re.fullmatch(r"(VQ|PQ|OPQ|RQ)-(\d+)-(\d+)-(\d+)", name.upper())
        if match is None:
            raise InputError(
                f"Expected a quantiser {{VQ|PQ|OPQ|RQ}}-{{Y-Cb-Cr bits a patch}} such as"
                f" OPQ-32-8-8, got {name!r}."
            )
        bits = (int(match[2]), int(match[3]), int(match[4]))
        if any(b == 0 or b % step for b in bits):
            raise InputError(
                f"Bits a channel must be positive multiples of {step} (one codebook of"
                f" {codebook_size} codewords each), got {name!r}."
            )
        kind: Kind = next(k for k in get_args(Kind) if k == match[1])
        if kind == "VQ" and any(b != step for b in bits):
            raise InputError(
                f"VQ has one codebook a channel, {step} bits with {codebook_size} codewords; got"
                f" {name!r}. Use PQ, OPQ or RQ for more bits."
            )
        return cls(kind, bits)


class PatchCodec(nn.Module):
    """A classical codec of image patches: YCbCr, then vector quantisation of each channel.

    Its codebooks are buffers, filled by `lit_mbldm.codecs.quantizers.fit_patch_codec` or by
    `lit_mbldm.zoo.load_pretrained`. Frozen, yet gradients pass through `decode_soft`.

    Source: Scribano et al., Algorithms 2023, 16, 501, sections 3.1 and 3.2.2.

    Args:
        quantizer: `{VQ|PQ|OPQ|RQ}-{Y-Cb-Cr}`, bits a patch for each channel.
        patch_size: side s of a patch in pixels.
        codebook_size: codewords K in every codebook, a power of two up to 256.
    """

    def __init__(
        self, quantizer: str = "OPQ-32-8-8", patch_size: int = 8, codebook_size: int = 256
    ) -> None:
        super().__init__()
        parsed = QuantizerName.parse(quantizer, codebook_size)
        self.quantizer = quantizer.upper()
        self.patch_size = patch_size
        self.codebook_size = codebook_size
        channels: list[Codebook] = []
        for bits in parsed.bits:
            num = bits // (codebook_size.bit_length() - 1)
            if parsed.kind == "RQ":
                channels.append(ResidualCodebook(patch_size**2, num, codebook_size))
            else:
                rotated = parsed.kind == "OPQ" and num > 1
                channels.append(ProductCodebook(patch_size**2, num, codebook_size, rotated))
        self.channels = cast(Sequence[Codebook], nn.ModuleList(channels))
        self.splits = [len(channel.codewords) for channel in channels]
        self.requires_grad_(False)

    @property
    def num_codes(self) -> int:
        """Codes S a patch: the channels of the latent, Y first, then Cb and Cr."""
        return sum(self.splits)

    @property
    def bits_per_pixel(self) -> float:
        """Rate of the codes in bits a pixel."""
        return self.num_codes * (self.codebook_size.bit_length() - 1) / self.patch_size**2

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the quantiser's name, the sizes and every array."""
        head = f"{self.quantizer} {self.patch_size} {self.codebook_size}"
        digest = hashlib.sha256(head.encode())
        for name, array in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(array.shape)}".encode())
            digest.update(array.detach().float().cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (S, h, w) of the codes of an image of this size.

        Raises:
            InputError: a side that is no multiple of the patch size.
        """
        check_image_size(height, width, self.patch_size)
        return self.num_codes, height // self.patch_size, width // self.patch_size

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) uint8 RGB, H and W multiples of the patch size.

        Returns:
            (B, S, h, w) uint8 codes.

        Raises:
            InputError: another shape or dtype, or sides that do not fit.
        """
        check_images(images)
        S, h, w = self.latent_shape(images.shape[2], images.shape[3])
        with full_float32(images.device):
            patches = to_patches(rgb_to_ycbcr(images), self.patch_size).flatten(1, 3)
            parts = [channel.encode(x) for channel, x in zip(self.channels, patches, strict=True)]
        codes = torch.cat(parts, dim=1)  # (Bhw, S)
        return codes.view(len(images), h, w, S).permute(0, 3, 1, 2).contiguous()

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes to images.

        Args:
            codes: (B, S, h, w) of any integer dtype, range [0, K-1].

        Returns:
            (B, 3, H, W) uint8 RGB.

        Raises:
            InputError: another shape, or a code out of range.
        """
        return self.reconstruct(codes).round_().clamp_(0, 255).to(torch.uint8)

    @torch.no_grad()
    def reconstruct(self, codes: Tensor) -> Tensor:
        """Decode codes without rounding or clipping: float32 (B, 3, H, W), nominal [0, 255].

        Args:
            codes: (B, S, h, w) of any integer dtype, range [0, K-1].

        Raises:
            InputError: another shape, or a code out of range.
        """
        if codes.ndim != 4 or codes.shape[1] != self.num_codes or codes.is_floating_point():
            raise InputError(
                f"Expected integer codes of shape (B, {self.num_codes}, h, w) for"
                f" {self.quantizer}, got {codes.dtype} of shape {tuple(codes.shape)}."
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise InputError(
                f"Codes must lie in [0, {self.codebook_size - 1}], got"
                f" [{int(codes.min())}, {int(codes.max())}]."
            )
        with full_float32(codes.device):
            return self._to_images(self.look_up(codes.long()))

    def decode_soft(self, weights: Tensor) -> Tensor:
        """Decode mixtures of codewords; differentiable in the weights (equation 21).

        Args:
            weights: (B, S, K, h, w) float, summing to one over K.

        Returns:
            (B, 3, H, W) float RGB, nominal range [0, 255]; equals `reconstruct` for one-hot
            weights.
        """
        with full_float32(weights.device):
            return self._to_images(self.assemble(self.soft_codewords(weights)))

    def soft_codewords(self, weights: Tensor) -> list[Tensor]:
        """Expected codewords: S tensors (B, h, w, d) from weights (B, S, K, h, w)."""
        sizes = weights.shape[3:]
        mixtures = [
            codebook.t() @ part.flatten(2).to(codebook.dtype)  # (B, d, hw)
            for part, codebook in zip(weights.unbind(1), self.codebooks(), strict=True)
        ]
        return [mixture.unflatten(2, sizes).permute(0, 2, 3, 1) for mixture in mixtures]

    def look_up(self, codes: Tensor) -> Tensor:
        """Codewords of codes (B, S, h, w) int64 as YCbCr patches (3, B, h, w, s²)."""
        return self.assemble([book[codes[:, site]] for site, book in enumerate(self.codebooks())])

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        return [codebook for channel in self.channels for codebook in channel.codewords]

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S codewords (B, h, w, d) into YCbCr patches (3, B, h, w, s²)."""
        patches, start = [], 0
        for channel, count in zip(self.channels, self.splits, strict=True):
            patches.append(channel.assemble(codewords[start : start + count]))
            start += count
        return torch.stack(patches)

    def _to_images(self, patches: Tensor) -> Tensor:
        return ycbcr_to_rgb(from_patches(patches, self.patch_size))
