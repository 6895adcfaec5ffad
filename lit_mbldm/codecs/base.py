"""ImageCodec: what every codec does, whatever its transform and its codebooks.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, S code channels, K codewords.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.patches import MAX_PATCH, check_image_size, check_images, describe_value
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.errors import InputError


def bits_a_code(codebook_size: int) -> int:
    """log2 of the codebook size.

    Raises:
        InputError: no power of two from 2 to 256.
    """
    bits = codebook_size.bit_length() - 1
    if not 2 <= codebook_size <= 256 or codebook_size != 1 << bits:
        raise InputError(
            f"codebook_size must be a power of two from 2 to 256, not {codebook_size}."
        )
    return bits


def digest_arrays(head: str, arrays: Mapping[str, Tensor]) -> str:
    """sha256 (hex) of a text and of arrays with their names, as float32."""
    digest = hashlib.sha256(head.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {tuple(array.shape)}".encode())
        digest.update(array.detach().float().cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


class ImageCodec(nn.Module):
    """Images to codes and back, a patch of pixels to S codes; the base of all codecs.

    A codec turns images into vectors of numbers, quantises these, and turns codewords into
    vectors and vectors into images. Its codebooks are buffers. Frozen, yet gradients pass through
    `decode_soft`.

    Args:
        quantizer: the name of the kind and its bits a patch.
        patch_size: side s of a patch in pixels.
        codebook_size: codewords K in every codebook, a power of two up to 256.
    """

    def __init__(self, quantizer: str, patch_size: int, codebook_size: int) -> None:
        super().__init__()
        if not 1 <= patch_size <= MAX_PATCH:
            raise InputError(f"patch_size must be from 1 to {MAX_PATCH} pixels, not {patch_size}.")
        self.quantizer = quantizer.upper()
        self.patch_size = patch_size
        self.codebook_size = codebook_size

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the codec, but do not round it.

        Raises:
            InputError: a type of fewer bits than float32, in which it would give other codes.
        """
        dtype = fn(torch.empty(0)).dtype
        if dtype.itemsize < torch.float32.itemsize:
            raise InputError(
                f"A codec stays in float32, as {dtype} would give other codes, and so does a model"
                " with its codec. For speed use torch.autocast(device, dtype) in Python, or"
                " precision: bf16-mixed or 16-mixed in a config."
            )
        return super()._apply(fn, recurse)

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        raise NotImplementedError

    @property
    def code_names(self) -> list[str]:
        """S short names of the code channels."""
        raise NotImplementedError

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into the vectors that are quantised."""
        raise NotImplementedError

    def quantize(self, vectors: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of vectors."""
        raise NotImplementedError

    def find_codes(self, images: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of images (B, 3, H, W) uint8 RGB."""
        return self.quantize(self.to_vectors(images))

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S (possibly soft) codewords (B, h, w, d) into vectors; linear."""
        raise NotImplementedError

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors into images (B, 3, H, W) float RGB, nominal [0, 255]; affine."""
        raise NotImplementedError

    def image_error(self, codewords: list[Tensor], target: Tensor) -> Tensor:
        """Mean squared RGB error of softly decoded images, x in [-1, 1], unclipped.

        Args:
            codewords: S soft codewords (B, h, w, d).
            target: vectors, of `look_up` or `to_vectors`.

        Returns:
            (B,) float32.
        """
        difference = self.to_images(self.assemble(codewords)) - self.to_images(target)
        return (difference / 127.5).square().mean(dim=(1, 2, 3))

    @property
    def num_codes(self) -> int:
        """Codes S a patch: the channels of the latent."""
        return len(self.code_names)

    @property
    def bits_per_pixel(self) -> float:
        """Rate of the codes in bits a pixel."""
        return self.num_codes * (self.codebook_size.bit_length() - 1) / self.patch_size**2

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the quantiser's name, the sizes and every array."""
        head = f"{self.quantizer} {self.patch_size} {self.codebook_size}"
        return digest_arrays(head, self.state_dict())

    @property
    def image_fingerprint(self) -> str:
        """sha256 (hex) of all that decoded images depend on; `fingerprint` but for a network."""
        return self.fingerprint

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

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> codec = load_pretrained("jpq-48")
            >>> codec.encode(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).shape
            torch.Size([2, 6, 8, 12])
        """
        check_images(images)
        S, h, w = self.latent_shape(images.shape[2], images.shape[3])
        with full_float32(images.device):
            codes = self.find_codes(images)  # (Bhw, S)
        return codes.view(len(images), h, w, S).permute(0, 3, 1, 2).contiguous()

    def decode(self, codes: Tensor, plain: bool = False) -> Tensor:
        """Decode codes to images.

        Args:
            codes: (B, S, h, w) of any integer dtype, range [0, K-1].
            plain: without the learned decoder that a `DecoderCodec` has.

        Returns:
            (B, 3, H, W) uint8 RGB.

        Raises:
            InputError: another shape, or a code out of range.

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> codec = load_pretrained("jpq-48")
            >>> codec.decode(torch.zeros(2, 6, 8, 12, dtype=torch.uint8)).shape
            torch.Size([2, 3, 64, 96])
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
        fits = isinstance(codes, Tensor) and codes.ndim == 4 and codes.shape[1] == self.num_codes
        if not fits or codes.is_floating_point():
            raise InputError(
                f"Expected a tensor of integer codes of shape (B, {self.num_codes}, h, w) for"
                f" {self.quantizer}, got {describe_value(codes)}. An array becomes one by"
                " torch.from_numpy."
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise InputError(
                f"Codes must lie in [0, {self.codebook_size - 1}], got"
                f" [{int(codes.min())}, {int(codes.max())}]."
            )
        with full_float32(codes.device):
            return self.to_images(self.look_up(codes.long()))

    def decode_soft(self, weights: Tensor) -> Tensor:
        """Decode mixtures of codewords; differentiable in the weights (equation 21).

        Args:
            weights: (B, S, K, h, w) float, summing to one over K.

        Returns:
            (B, 3, H, W) float RGB, nominal range [0, 255]; equals `reconstruct` for one-hot
            weights.
        """
        with full_float32(weights.device):
            return self.to_images(self.assemble(self.soft_codewords(weights)))

    def soft_codewords(self, weights: Tensor) -> list[Tensor]:
        """Expected codewords: S tensors (B, h, w, d) from weights (B, S, K, h, w)."""
        sizes = weights.shape[3:]
        mixtures = [
            codebook.t() @ part.flatten(2).to(codebook.dtype)  # (B, d, hw)
            for part, codebook in zip(weights.unbind(1), self.codebooks(), strict=True)
        ]
        return [mixture.unflatten(2, sizes).permute(0, 2, 3, 1) for mixture in mixtures]

    def look_up(self, codes: Tensor) -> Tensor:
        """Vectors of the codes (B, S, h, w) int64."""
        return self.assemble([book[codes[:, site]] for site, book in enumerate(self.codebooks())])
