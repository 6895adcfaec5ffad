"""Training of refiners, which improve decoded images: their base, and the paper's.

B images, H×W pixels, S code channels, h×w positions, K codewords.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.decoders import improve
from lit_mbldm.codecs.patches import check_images
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.sizes import to_uint8
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.module import CodecModule


class RefinerModule(CodecModule):
    """What improves images that its codec decodes; the base of refiners."""

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """Mean loss of a batch.

        Of `images`, (B, 3, H, W) uint8 RGB, the target, their `codes`, (B, S, h, w) uint8, and
        `index`, (B,) int64; `key` is of the noise.
        """
        raise NotImplementedError

    def refine(self, images: Tensor, streams: SampleStreams | None = None) -> Tensor:
        """Improve decoded images, (B, 3, H, W) uint8 RGB, to the same on their device.

        Args:
            images: as the codec decodes them.
            streams: of the noise, where there is any, B of them; by default of an image's place.

        Raises:
            InputError: another shape or dtype.
        """
        raise NotImplementedError


class Refiner(RefinerModule):
    """A network that brings images decoded from noisy codes closer to the originals.

    Source: Scribano et al. 2023, section 4.2.2.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        network: from images to images, (B, 3, H, W) float RGB in [0, 1].
        noise_range: least and greatest standard deviation of the noise on the codes in training,
            in index levels; each sample draws its own, uniformly. With opq-32-8-8 one level costs
            7 dB already and eight cost 9 dB.
        learning_rate: of Adam.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.

    Raises:
        InputError: a noise range that is none.
    """

    def __init__(
        self,
        codec: str | ImageCodec,
        network: nn.Module,
        noise_range: tuple[float, float] = (0.0, 1.0),
        learning_rate: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps)
        if not 0 <= noise_range[0] <= noise_range[1]:
            expected = "noise_range as two numbers from 0, the lesser first, such as [0, 1]"
            raise InputError(f"Expected {expected}; got {noise_range}.")
        self.network = network
        self.noise_range = noise_range
        self.train()

    def corrupt(self, codes: Tensor, sigma: Tensor, streams: SampleStreams) -> Tensor:
        """round(codes + σ·normal) within [0, K-1], for σ (B,) and codes (B, S, h, w) uint8."""
        noise = sigma.view(-1, 1, 1, 1) * streams.normal(codes.shape[1:])
        return (codes + noise).round().clamp(0, self.codec.codebook_size - 1).to(torch.uint8)

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """L1 + (1 - SSIM), on values in [0, 1], of images refined from noisy codes."""
        images, codes, streams = self.images_of(batch), batch["codes"], self.streams(batch, key)
        low, high = self.noise_range
        sigma = low + (high - low) * streams.uniform(())
        decoded = self.codec.decode(self.corrupt(codes, sigma, streams))
        return image_loss(self.network(decoded / 255), images / 255)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, and PSNR and SSIM before and after refining, with the same noise always.

        `noisy` is at the greatest noise of the range, `clean` has none.
        """
        key = self.validation_key()
        figures = {"val/loss": self.loss(batch, key)}
        images, codes = batch["images"], batch["codes"]
        greatest = torch.full((len(codes),), float(self.noise_range[1]), device=codes.device)
        noisy = self.corrupt(codes, greatest, self.streams(batch, key))
        decoded = {"noisy": self.codec.decode(noisy), "clean": self.codec.decode(codes)}
        for name, before in decoded.items():
            after = self.refine(before)
            for measure in (psnr, ssim):
                figures[f"val/{measure.__name__}_{name}_before"] = measure(before, images).mean()
                figures[f"val/{measure.__name__}_{name}_after"] = measure(after, images).mean()
        self.log_dict(figures, sync_dist=True, batch_size=len(codes))

    @torch.no_grad()
    def refine(self, images: Tensor, streams: SampleStreams | None = None) -> Tensor:
        """Improve decoded images, without noise; arguments as of its base."""
        check_images(images)
        return to_uint8(improve(self.network, images.float()))


def image_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 + (1 - SSIM) of (B, 3, H, W) RGB in [0, 1], sides of at least 8, in float32."""
    decoded, images = decoded.float(), images.float()
    with full_float32(images.device):
        similarity = structural_similarity_index_measure(decoded, images, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return (decoded - images).abs().mean() + 1 - similarity


def load_refiner(name: str | Path) -> RefinerModule:
    """Load a refiner as `load_pretrained` does; raises InputError for another model."""
    refiner = load_pretrained(name)
    if not isinstance(refiner, RefinerModule):
        raise InputError(f"{name} is a {type(refiner).__name__}, expected a Refiner.")
    return refiner
