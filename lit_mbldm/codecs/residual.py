"""A latent of what a codec takes from images.

B images, H×W pixels.
"""

from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs.components import ComponentLatent
from lit_mbldm.codecs.sizes import to_uint8
from lit_mbldm.errors import InputError


class ResidualLatent(ComponentLatent):
    """What images are beyond what their codes decode to, blocks of pixels as positions.

    Its grid is that of the blocks, whatever the codec's. A residual is far from white: that of a
    photograph stored as JPEG, for one, has next to no fine detail in colour, which noise of all
    pixels alike would drown. So it is decorrelated, and its strongest components are kept.

    Args:
        channels: C, at most the 3·block² numbers of a block.
        block: side of a block in pixels.
        whitening: as of `ComponentLatent`.
    """

    def __init__(self, channels: int = 24, block: int = 4, whitening: float = 0.5) -> None:
        super().__init__(channels, whitening)
        self.block = block

    @property
    def width(self) -> int:
        """Red, green and blue of each pixel of a block."""
        return 3 * self.block**2

    def numbers(self, codes: Tensor, images: Tensor | None) -> Tensor:
        """The residual of pixels in [-1, 1]; raises InputError for codes alone."""
        if images is None:
            raise InputError(
                "A residual is of images, but the data has codes only. Train on image shards"
                " (`lit-mbldm shards`) or crops instead of code shards."
            )
        return self.residual(self.codec.decode(codes), images)

    def residual(self, decoded: Tensor, images: Tensor) -> Tensor:
        """Images less what their codes decode to, blocks of pixels in [-1, 1] as positions.

        Args:
            decoded: (B, 3, H, W) uint8 RGB.
            images: of the same shape and dtype.

        Returns:
            (B, H/block, W/block, 3·block²) float32.

        Raises:
            InputError: sides that are no multiples of the block's.
        """
        return self._blocks((images.float() - decoded) / 127.5).movedim(1, -1)

    def to_map(self, images: Tensor) -> Tensor:
        """Lay images (B, 3, H, W) uint8 RGB on the grid: (B, 3·block², h, w) in [-1, 1].

        Raises InputError as `residual`.
        """
        return self._blocks(images / 127.5 - 1)

    def add_to(self, images: Tensor, z0: Tensor) -> Tensor:
        """Add the residual that z_0 is to images (B, 3, H, W) uint8 RGB, to the same."""
        residual = F.pixel_shuffle(self.to_numbers(z0).movedim(-1, 1), self.block)
        return to_uint8(images + 127.5 * residual)

    def _blocks(self, pixels: Tensor) -> Tensor:
        H, W = pixels.shape[2:]
        if H % self.block or W % self.block:
            raise InputError(
                f"Expected images of sides that are multiples of block {self.block}, got {H}×{W}."
            )
        return F.pixel_unshuffle(pixels, self.block)
