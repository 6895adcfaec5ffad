"""A generative decoder: from codes to an image, with what quantisation removed drawn anew.

B images, H×W pixels.
"""

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.patches import check_images
from lit_mbldm.codecs.residual import ResidualLatent
from lit_mbldm.denoisers.base import HeadedNetwork
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw
from lit_mbldm.processes.scaled_prior import ScaledPriorProcess
from lit_mbldm.training.fit_latent import fit_new_latent
from lit_mbldm.training.module import Decay, OptimizerName
from lit_mbldm.training.refiner import RefinerModule


class GenerativeDecoder(RefinerModule):
    """Diffusion of the residual that quantisation took, told the decoded image.

    Other noise gives another image: its details are drawn, as likely ones, not guessed at by their
    mean as a `Refiner` does. In f-DM's stage `Quantise` z_t is the decoded image, a share of the
    residual and noise; for a network that is told the decoded image this is a diffusion of the
    residual alone, which is noised here as a `ResidualLatent`.

    Source: f-DM, Gu et al. 2022, arXiv 2210.04955, with a codec in place of its encoder;
    residuals after Li et al. 2021, SRDiff, arXiv 2104.14951.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        network: a denoiser that takes a map, such as a `UNet`.
        block: side of the pixels that are one position to the network.
        channels: principal components of a block's residual that are drawn, at most 3·block².
        steps: of sampling.
        noise_scale: times the deviation of the noise that drawing starts from. At 1 details vary as
            in photographs, at 0 there is one image, nearly as smooth as a refiner's.
        learning_rate: of the optimiser.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        optimizer: adam or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.

    Raises:
        InputError: more channels than a block has numbers, or a negative noise_scale.
    """

    def __init__(
        self,
        codec: str | ImageCodec,
        network: nn.Module,
        block: int = 4,
        channels: int = 24,
        steps: int = 10,
        noise_scale: float = 0.5,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps, optimizer, decay)
        self.network = network
        self.block = block
        self.channels = channels
        self.steps = steps
        self.noise_scale = noise_scale
        self.latent = ResidualLatent(channels, block)
        self.latent.use(self.codec)
        self.process = ScaledPriorProcess(
            noise_scale, schedule="cosine", objective="v", self_conditioning=False
        )
        self.process.use_latent(self.latent)
        if isinstance(network, HeadedNetwork):
            network.set_channels(channels, channels, self.latent.width)
        self.train()

    def configure_model(self) -> None:
        """Scale a new run's latent to its data."""
        fit_new_latent(self.latent, self._trainer)

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """Mean loss of the residual's diffusion at random times; arguments as of its base."""
        images, streams = self.images_of(batch), self.streams(batch, key)
        t = self.process.draw_times(streams, key)
        decoded = self.codec.decode(batch["codes"])
        z0 = self.latent.to_components(self.latent.residual(decoded, images))
        known = self.latent.to_map(decoded)
        return self.process.loss(self.network, z0, t, streams, known).mean()

    @torch.no_grad()
    def refine(self, images: Tensor, streams: SampleStreams | None = None) -> Tensor:
        """Draw images whose codes decode to these; arguments as of its base."""
        check_images(images)
        if streams is None:
            streams = SampleStreams([(0, place) for place in range(len(images))], images.device)
        known = self.latent.to_map(images)
        shape = (self.channels, *known.shape[2:])
        training = self.training
        self.eval()
        try:
            z0 = draw(
                self.process, self.network, shape, self.steps, streams, "dpm++", condition=known
            )
        finally:
            self.train(training)
        return self.latent.add_to(images, z0)
