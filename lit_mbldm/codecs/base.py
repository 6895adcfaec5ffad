"""ImageCodec: what every codec does, whatever its transform and its codes.

B images, H×W pixels, s pixels a patch side, h = H/s, w = W/s, S code channels, K values of a code.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.codecs.patches import MAX_PATCH, check_codes, check_image_size, check_images
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.sizes import resize, to_uint8
from lit_mbldm.errors import InputError, check_numbers

if TYPE_CHECKING:
    from lit_mbldm.pictures import Images


def fingerprint_arrays(head: str, arrays: Mapping[str, Tensor]) -> str:
    """sha256 (hex) of a text and of arrays with their names, as float32."""
    digest = hashlib.sha256(head.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {tuple(array.shape)}".encode())
        digest.update(array.detach().float().cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


class ImageCodec(nn.Module):
    """Images to codes and back, a patch of pixels to S codes; the base of all codecs.

    A codec turns images into vectors of numbers, quantises these, and turns codes into vectors
    and vectors into images. Frozen, yet gradients pass through `to_images` and `decode_soft`.

    Args:
        quantizer: the name of the kind and its bits a patch.
        patch_size: side s of a patch in pixels.
        codebook_size: values K of a code, a power of two up to 256.
    """

    def __init__(self, quantizer: str, patch_size: int, codebook_size: int) -> None:
        super().__init__()
        check_numbers(1, MAX_PATCH, patch_size=patch_size)
        self.quantizer = quantizer.upper()
        self.patch_size = patch_size
        self.codebook_size = codebook_size

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the codec, but do not round it.

        Raises InputError for a type of fewer bits than float32, in which it would give other codes.
        """
        dtype = fn(torch.empty(0)).dtype
        if dtype.itemsize < torch.float32.itemsize:
            raise InputError(
                f"A codec stays in float32, as {dtype} would give other codes, and so does a model"
                " with its codec. For speed use torch.autocast(device, dtype) in Python, or"
                " precision: bf16-mixed or 16-mixed in a config."
            )
        return super()._apply(fn, recurse)

    @property
    def code_names(self) -> list[str]:
        """S short names of the code channels."""
        raise NotImplementedError

    @property
    def halo(self) -> int:
        """By how many pixels a code's support exceeds its patch on each side."""
        return 0

    def to_vectors(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) uint8 RGB into the vectors that are quantised."""
        raise NotImplementedError

    def quantize(self, vectors: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of vectors."""
        raise NotImplementedError

    def find_codes(self, images: Tensor) -> Tensor:
        """Find the codes (Bhw, S) uint8 of images (B, 3, H, W) uint8 RGB."""
        return self.quantize(self.to_vectors(images))

    def look_up(self, codes: Tensor) -> Tensor:
        """Turn codes (B, S, h, w) int64 into vectors."""
        raise NotImplementedError

    def to_images(self, vectors: Tensor) -> Tensor:
        """Turn vectors into images (B, 3, H, W) float RGB, nominal [0, 255]."""
        raise NotImplementedError

    def decode_soft(self, weights: Tensor) -> Tensor:
        """Decode mixtures of codes; differentiable in the weights.

        Args:
            weights: (B, S, K, h, w) float, summing to one over K.

        Returns:
            (B, 3, H, W) float RGB, nominal range [0, 255]; equals `reconstruct` for one-hot
            weights.
        """
        raise NotImplementedError

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
        return fingerprint_arrays(head, self.state_dict())

    @property
    def image_fingerprint(self) -> str:
        """sha256 (hex) of all that decoded images depend on; `fingerprint` but for a network."""
        return self.fingerprint

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (S, h, w) of the codes of an image of this size.

        Raises InputError for a side that is no multiple of the patch size.
        """
        check_image_size(height, width, self.patch_size)
        return self.num_codes, height // self.patch_size, width // self.patch_size

    def encode(self, images: "Images") -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) uint8 RGB, or what `lit_mbldm.pictures.to_batch` takes: paths,
                Pillow images or arrays. H and W are multiples of the patch size.

        Returns:
            (B, S, h, w) uint8 codes, of a tensor on its device.

        Raises:
            InputError: another shape or dtype, sides that do not fit, or a file without an image.

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> codec = load_pretrained("jpq-48")
            >>> codec.encode(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).shape
            torch.Size([2, 6, 8, 12])
        """
        if not isinstance(images, Tensor):
            from lit_mbldm.pictures import to_batch  # slow to import

            images = to_batch(images).to(next(self.buffers()).device)
        check_images(images)
        S, h, w = self.latent_shape(images.shape[2], images.shape[3])
        with full_float32(images.device):
            codes = self.find_codes(images)  # (Bhw, S)
        return codes.view(len(images), h, w, S).permute(0, 3, 1, 2).contiguous()

    def touched(self, mask: Tensor) -> Tensor:
        """Find the positions whose pixels, the halo's included, a mask touches.

        Args:
            mask: (B, H, W) bool.

        Returns:
            (B, 1, h, w) bool.
        """
        marked = mask[:, None].float()
        if self.halo:
            marked = F.max_pool2d(marked, 2 * self.halo + 1, stride=1, padding=self.halo)
        return F.max_pool2d(marked, self.patch_size) > 0

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Decode codes to images.

        Args:
            codes: (B, S, h, w) of any integer dtype, range [0, K-1].
            size: (H, W) of the images in pixels, at most 65,536 a side and 2^28 in all; None is the
                codes' own.

        Returns:
            (B, 3, H, W) uint8 RGB.

        Raises:
            InputError: another shape, a code out of range, or a size below 1 or above the limit.

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> codec = load_pretrained("jpq-48")
            >>> codec.decode(torch.zeros(2, 6, 8, 12, dtype=torch.uint8)).shape
            torch.Size([2, 3, 64, 96])
        """
        return self.decode_vectors(self.check_and_look_up(codes), size)

    def decode_vectors(self, vectors: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Decode vectors that need not be quantised to (B, 3, H, W) uint8; `size` as `decode`."""
        with full_float32(vectors.device):
            return to_uint8(self.enlarge(self.restore(vectors), vectors, size))

    def restore(self, vectors: Tensor, progress: bool = False) -> Tensor:
        """Turn vectors into images as they are shown, (B, 3, H, W) float RGB, nominal [0, 255].

        They are `to_images`'s but for a network; `progress` shows a bar over large ones' tiles.
        """
        return self.to_images(vectors)

    def enlarge(
        self,
        images: Tensor,
        vectors: Tensor,
        size: tuple[int, int] | None,
        progress: bool = False,
    ) -> Tensor:
        """Bring images (B, 3, H, W) float RGB of `restore` to another size.

        Here by antialiased bicubic interpolation. Rows and columns may be missing from the end of
        what the vectors stand for.
        """
        return resize(images, size)

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Decode codes without rounding or clipping: float32 (B, 3, H, W), nominal [0, 255].

        Args:
            codes: (B, S, h, w) of any integer dtype, range [0, K-1].

        Raises:
            InputError: another shape, or a code out of range.
        """
        with full_float32(codes.device):
            return self.to_images(self.check_and_look_up(codes))

    def check_and_look_up(self, codes: Tensor) -> Tensor:
        """Turn codes (B, S, h, w) into vectors; raises InputError as `reconstruct`."""
        check_codes(codes, self.num_codes, self.codebook_size, self.quantizer)
        with full_float32(codes.device):
            return self.look_up(codes.long())
