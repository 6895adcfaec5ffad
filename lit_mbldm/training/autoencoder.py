"""Training of the learned binary codec.

B images, H×W pixels, c bits at h×w positions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import BinaryCodec
from lit_mbldm.codecs.patches import check_image_size
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.training.module import Decay, OptimizerName, TrainingModule
from lit_mbldm.training.refiner import image_loss


class BinaryAutoencoder(TrainingModule):
    """An autoencoder whose bits are drawn in training; its checkpoints load as a `BinaryCodec`.

    The loss is L1 + (1 - SSIM), without the adversarial and perceptual terms of the source: Wang et
    al. 2023, arXiv 2304.04820, section 3.1.

    Args:
        network: as of `BinaryCodec`.
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

    def trained(self) -> BinaryCodec:
        """The codec, with a copy of the network."""
        return BinaryCodec(self.network)

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """L1 + (1 - SSIM), on values in [0, 1], of images decoded from bits that are drawn.

        Of a batch of `images`, (B, 3, H, W) uint8 RGB, and `index`, (B,) int64; `key` is of the
        bits.
        """
        images = self.images_of(batch)
        check_image_size(images.shape[2], images.shape[3], self.network.patch_size)
        logits = self.network.encode(images / 255).float()  # (B, c, h, w)
        bits = draw_bits(logits, self.streams(batch, key).uniform(logits.shape[1:]))
        return image_loss(self.network.decode(bits), images / 255)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, and PSNR and SSIM of the codec, whose bits are not drawn."""
        images, codec = self.images_of(batch), self.trained()
        decoded = codec.decode(codec.encode(images))
        figures = {"val/loss": self.loss(batch, self.validation_key())}
        figures |= {f"val/{f.__name__}": f(decoded, images).mean() for f in (psnr, ssim)}
        self.log_dict(figures, prog_bar=True, sync_dist=True, batch_size=len(images))


def draw_bits(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw bits of ±1 with these log-odds; the gradient is their expectation's (straight-through).

    Args:
        logits: of +1, any shape.
        uniform: random numbers in [0, 1), the same shape.
    """
    expected = (logits / 2).tanh()
    bits = torch.where(2 * uniform - 1 < expected, 1.0, -1.0)
    return expected + (bits - expected).detach()
