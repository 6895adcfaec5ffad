"""Training and sampling of the continuous model."""

from torch import Tensor

from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.diffusion import DiffusionModule


class ContinuousDiffusion(DiffusionModule):
    """DDPM on codes read as numbers (Scribano et al. 2023, section 4.2.2).

    Args as for `DiffusionModule`.
    """

    process: GaussianProcess
    process_class = GaussianProcess

    def process_loss(
        self, z0: Tensor, t: Tensor, generator: SampleStreams, images: Tensor | None
    ) -> Tensor:
        """Min-SNR weighted squared error of each sample, (B,)."""
        return self.process.loss(self.denoiser, z0, t, generator)
