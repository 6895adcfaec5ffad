"""A generative decoder: from codes to an image, with what quantisation removed drawn anew.

B images, H×W pixels.
"""

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.patches import check_images
from lit_mbldm.codecs.pixels import PixelLatent
from lit_mbldm.denoisers.base import HeadedNetwork
from lit_mbldm.processes import MultiStageProcess, Quantise
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw
from lit_mbldm.training.module import Decay, OptimizerName
from lit_mbldm.training.refiner import RefinerModule


class GenerativeDecoder(RefinerModule):
    """The first stage of f-DM on pixels, whose coarse signal is the image that the codes decode to.

    A decoded image with the noise of time `boundary` is taken to an image without, on the way from
    what codes keep to what they do not. Other noise gives another image: its details are drawn, as
    likely ones, not guessed at by their mean as a `Refiner` does.

    Source: f-DM, Gu et al. 2022, arXiv 2210.04955, with a codec in place of its encoder.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        network: a denoiser, as of a diffusion model.
        block: side of the pixels that are one position to the network.
        boundary: t/T of the cosine schedule that samples start at. The noise there, of deviation
            about 1.6 times this, must hide what quantisation changed.
        steps: of sampling.
        learning_rate: of the optimiser.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        optimizer: adam or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.

    Raises:
        InputError: a boundary outside (0, 1].
    """

    def __init__(
        self,
        codec: str | ImageCodec,
        network: nn.Module,
        block: int = 4,
        boundary: float = 0.05,
        steps: int = 10,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps, optimizer, decay)
        self.network = network
        self.block = block
        self.boundary = boundary
        self.steps = steps
        self.latent = PixelLatent(block)
        self.latent.use(self.codec)
        self.process = MultiStageProcess([Quantise()], [boundary], self_conditioning=False)
        self.process.use_latent(self.latent)
        self.process.leave_out_last_stage()
        if isinstance(network, HeadedNetwork):
            channels = self.latent.num_channels(self.codec.num_codes)
            network.set_channels(channels, self.process.output_channels(channels))
        self.train()

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """Mean loss of f-DM at random times up to the boundary; arguments as of its base."""
        images, streams = self.images_of(batch), self.streams(batch, key)
        t = self.process.draw_times(streams, key)
        z0 = self.latent.to_latent(batch["codes"], images)
        return self.process.loss(self.network, z0, t, streams).mean()

    @torch.no_grad()
    def refine(self, images: Tensor, streams: SampleStreams | None = None) -> Tensor:
        """Draw images whose codes decode to these; arguments as of its base."""
        check_images(images)
        if streams is None:
            streams = SampleStreams([(0, place) for place in range(len(images))], images.device)
        coarse = self.latent.to_latent(images, images)
        start = self.process.begin(coarse, streams)
        training = self.training
        self.eval()
        try:
            z0 = draw(
                self.process, self.network, coarse.shape[1:], self.steps, streams, "ddim",
                start=start,
            )  # fmt: skip
        finally:
            self.train(training)
        return self.latent.decode(z0)
