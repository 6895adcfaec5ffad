"""Training of learned codecs.

B images, H×W pixels, c numbers or bits at h×w positions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import BinaryCodec, ScalarCodec
from lit_mbldm.codecs.learned import LearnedCodec
from lit_mbldm.codecs.patches import check_image_size
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.sizes import resize, resized
from lit_mbldm.errors import InputError, check_numbers
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.training.implicit import draw_window
from lit_mbldm.training.module import Decay, OptimizerName, TrainingModule
from lit_mbldm.training.refiner import image_loss


class Autoencoder(TrainingModule):
    """An autoencoder whose checkpoints load as a learned codec; the base of both kinds.

    Args:
        network: as of the codec.
        learning_rate: of the optimiser.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        optimizer: adam or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, warmup_steps, optimizer, decay)
        self.network: Any = network
        self.train()

    def trained(self) -> LearnedCodec:
        """The codec, with a copy of the network."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """The loss of a batch of `images`, (B, 3, H, W) uint8 RGB, and `index`, (B,) int64."""
        raise NotImplementedError

    def encoded(self, batch: dict[str, Tensor]) -> Tensor:
        """The images that the codec sees, (B, 3, H, W) uint8 RGB; raises InputError for codes."""
        images = self.images_of(batch)
        check_image_size(images.shape[2], images.shape[3], self.network.patch_size)
        return images

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, and PSNR and SSIM of the codec at its own size."""
        images, codec = self.encoded(batch), self.trained()
        decoded = codec.decode(codec.encode(images))
        figures = {"val/loss": self.loss(batch, self.validation_key())}
        figures |= {f"val/{f.__name__}": f(decoded, images).mean() for f in (psnr, ssim)}
        self.log_dict(figures, prog_bar=True, sync_dist=True, batch_size=len(images))


class BinaryAutoencoder(Autoencoder):
    """An autoencoder whose bits are drawn in training; its checkpoints load as a `BinaryCodec`.

    The loss is L1 + (1 - SSIM), without the adversarial and perceptual terms of the source: Wang et
    al. 2023, arXiv 2304.04820, section 3.1. Args as of `Autoencoder`.
    """

    def trained(self) -> BinaryCodec:
        """The codec, with a copy of the network."""
        return BinaryCodec(self.network)

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """L1 + (1 - SSIM), on values in [0, 1], of images decoded from bits that are drawn.

        `key` is of the bits.
        """
        images = self.encoded(batch)
        logits = self.network.encode(images / 255).float()  # (B, c, h, w)
        bits = draw_bits(logits, self.streams(batch, key).uniform(logits.shape[1:]))
        return image_loss(self.network.decode(bits), images / 255)


class ScalarAutoencoder(Autoencoder):
    """An autoencoder that draws images of any size; its checkpoints load as a `ScalarCodec`.

    Images are made smaller, antialiased, and encoded; a batch is drawn at one size between that and
    their own. The loss is L1 over a window. Source: Kim & Kim 2024, arXiv 2403.10255, section 3.1.

    Args:
        network: an `ImplicitAutoencoder`.
        low_size: side of the images when they are encoded, in pixels.
        drawn_size: side of the window that is drawn, of all where the image is smaller.
        learning_rate: of the optimiser.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        optimizer: adam or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.
    """

    def __init__(
        self,
        network: nn.Module,
        low_size: int = 64,
        drawn_size: int = 64,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(network, learning_rate, betas, warmup_steps, optimizer, decay)
        check_image_size(low_size, low_size, self.network.patch_size)
        check_numbers(1, drawn_size=drawn_size)
        self.low_size = low_size
        self.drawn_size = drawn_size

    def trained(self) -> ScalarCodec:
        """The codec, with a copy of the network."""
        return ScalarCodec(self.network)

    def encoded(self, batch: dict[str, Tensor]) -> Tensor:
        """The batch's images at the size of encoding; raises InputError where they are smaller."""
        images, low = self.images_of(batch), self.low_size
        if images.shape[2] != images.shape[3] or images.shape[2] < low:
            raise InputError(
                f"Expected square images of at least low_size {low}×{low}, got"
                f" {images.shape[2]}×{images.shape[3]}. Raise the data's image or crop size."
            )
        with full_float32(images.device):
            return resized(images, (low, low))

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """L1, on values in [0, 1], of a window of images drawn at a size that is the batch's.

        `key` is of size and window.
        """
        low, images, streams = self.encoded(batch), batch["images"], self.streams(batch, key)
        part = float(streams.uniform(())[0])
        side = self.low_size + int(part * (images.shape[2] - self.low_size + 1))
        window = draw_window(side, self.drawn_size, streams)
        numbers = (self.network.encode(low / 255).float() / 2).tanh()  # (B, c, h, w)
        drawn = self.network.decode(round_to_levels(numbers), (side, side), window=window)
        with full_float32(images.device):
            target = resize(images.float(), (side, side))[:, :, *window] / 255
        return (drawn - target).abs().mean()


def draw_bits(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw bits of ±1 with these log-odds; the gradient is their expectation's (straight-through).

    Args:
        logits: of +1, any shape.
        uniform: random numbers in [0, 1), the same shape.
    """
    expected = (logits / 2).tanh()
    bits = torch.where(2 * uniform - 1 < expected, 1.0, -1.0)
    return expected + (bits - expected).detach()


def round_to_levels(numbers: Tensor) -> Tensor:
    """Round numbers in [-1, 1] to the 256 levels of a `ScalarCodec`; the gradient passes."""
    rounded = ((numbers + 1) * 127.5).round() / 127.5 - 1
    return numbers + (rounded - numbers).detach()
