"""JointCodec: the three channels of a patch quantised together, after a lapped transform.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, S code channels, K codewords of d
numbers each.
"""

import re

import torch
from torch import Tensor

from lit_mbldm.codecs.bits import count_codes
from lit_mbldm.codecs.lapping import filter_borders, inverse_filters, lap, patch_costs, unlap
from lit_mbldm.codecs.patches import LEVEL, from_joint_patches, to_joint_patches
from lit_mbldm.codecs.vector_quantized import (
    ProductCodebook,
    VectorQuantizedCodec,
    nearest_codewords,
)
from lit_mbldm.errors import InputError

# More gain nothing from 8 to 96 bits a patch of 8×8 pixels, and make encoding slower.
_SUB_DIM = 16


class JointCodec(VectorQuantizedCodec):
    """Joint product quantisation: RGB patches as vectors of 3s² numbers, turned, cut and quantised.

    A lapped transform lets patches overlap; a rotation decorrelates their numbers and deals them
    out to S sub-codebooks of equal volume. The squared error of codewords is the squared RGB error,
    exactly where patches do not overlap and nearly where they do (see `lapping`). Filled by
    `lit_mbldm.codecs.fitting.joint.fit_joint_codec` or by `lit_mbldm.zoo.load_pretrained`. Its
    vectors are (B, h, w, 3s²).

    Args:
        quantizer: `JPQ-{bits}`, bits a patch.
        patch_size: side s of a patch in pixels, even where patches overlap.
        codebook_size: codewords K in every codebook, a power of two up to 256.
        sub_dim: numbers d a codeword; those of a patch that find no place in S·d, the weakest,
            decode to zero. By default 16, or as many as there are.
        lapped: whether patches overlap.

    Raises:
        InputError: another kind of name, or sizes that do not fit each other.
    """

    lapping: Tensor | None  # V of the lapped transform, (s/2, s/2)
    _inverses: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        quantizer: str = "JPQ-48",
        patch_size: int = 8,
        codebook_size: int = 256,
        sub_dim: int | None = None,
        lapped: bool = True,
    ) -> None:
        match = re.fullmatch(r"JPQ-(\d+)", quantizer.upper())
        if match is None:
            raise InputError(f"Expected JPQ-{{bits a patch}} such as JPQ-48, got {quantizer!r}.")
        num, dim = count_codes(int(match[1]), codebook_size, quantizer), 3 * patch_size**2
        super().__init__(quantizer, patch_size, codebook_size)
        self.sub_dim = min(_SUB_DIM, dim // num) if sub_dim is None else sub_dim
        self.lapped = lapped
        if not 1 <= self.sub_dim <= dim // num:
            raise InputError(
                f"A patch of {patch_size}×{patch_size} pixels has {dim} numbers, which {num}"
                f" codebooks share: sub_dim must be from 1 to {dim // num}, not {self.sub_dim}."
                if num <= dim
                else f"{quantizer} has {num} codebooks, more than the {dim} numbers of a patch of"
                f" {patch_size}×{patch_size} pixels. Use fewer bits or larger patches."
            )
        if lapped and patch_size % 2:
            raise InputError(
                f"Patches that overlap have an even side, not {patch_size}; or use lapped: false."
            )
        self.codebook = ProductCodebook(dim, num, codebook_size, rotated=True, sub_dim=self.sub_dim)
        self.register_buffer("lapping", torch.eye(patch_size // 2) if lapped else None)
        self.requires_grad_(False)

    @property
    def code_names(self) -> list[str]:
        """`P0`, `P1` and so on."""
        return [f"P{m}" for m in range(len(self.codebook.codewords))]

    @property
    def halo(self) -> int:
        """Half a side, where patches overlap."""
        return self.patch_size // 2 if self.lapped else 0

    def keep_inverses(self) -> None:
        """Decode from now on with the inverses of today's `lapping`, as a traced graph has to."""
        if self.lapping is not None:
            self._inverses = inverse_filters(self.lapping)

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        return list(self.codebook.codewords)

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into vectors (B, h, w, 3s²) around zero."""
        centred = images.to(torch.float32) - LEVEL
        if self.lapping is not None:
            centred = lap(centred, self.lapping)
        return to_joint_patches(centred, self.patch_size)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of vectors (B, h, w, 3s²)."""
        return self.codebook.encode(vectors.flatten(0, 2))

    def find_codes(self, images: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of images, with the lapping's costs in the rotation."""
        if self.lapping is None:
            return super().find_codes(images)
        centred = images.to(torch.float32, copy=True).sub_(LEVEL)
        filter_borders(centred, self.lapping)
        patches = to_joint_patches(centred, self.patch_size).flatten(0, 2)  # (Bhw, 3s²)
        rotation, (M, _, d) = self.codebook.rotation, self.codebook.codewords.shape
        assert rotation is not None
        rotation = (rotation.unflatten(1, (3, -1)) @ patch_costs(self.lapping)).flatten(1)
        rotated = (patches @ rotation.t()).view(-1, M, d)
        return nearest_codewords(rotated, self.codebook.codewords)

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S codewords (B, h, w, d) into vectors (B, h, w, 3s²)."""
        return self.codebook.assemble(codewords)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Turn vectors (B, h, w, 3s²) into S parts (B, h, w, d)."""
        return self.codebook.split(vectors)

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors (B, h, w, 3s²) into images (B, 3, H, W) float RGB."""
        centred = from_joint_patches(vectors, self.patch_size)
        if self.lapping is not None:
            centred = unlap(centred, self._inverses or inverse_filters(self.lapping))
        return centred + LEVEL
