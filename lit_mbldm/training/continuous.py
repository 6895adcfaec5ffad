"""Training and sampling of the continuous model."""

from torch import Tensor

from lit_mbldm.processes import GaussianProcess
from lit_mbldm.randomness import SampleStreams
from lit_mbldm.training.diffusion import DiffusionModule


class ContinuousDiffusion(DiffusionModule):
    """DDPM on code indices read as numbers (Scribano et al. 2023, section 4.2.2).

    Args as for `DiffusionModule`.
    """

    process: GaussianProcess
    process_class = GaussianProcess

    def process_loss(self, z0: Tensor, t: Tensor, generator: SampleStreams) -> Tensor:
        """Min-SNR weighted squared error of each sample, (B,)."""
        return self.process.loss(self.denoiser, z0, t, generator)

    def sample(
        self,
        num_images: int,
        steps: int = 50,
        seed: int = 0,
        batch_size: int = 16,
        progress: bool = False,
    ) -> Tensor:
        """Generate images; image i depends on (seed, i) alone.

        Args:
            num_images: N.
            steps: reverse steps, at most T.
            seed: of the noise.
            batch_size: images made at once.
            progress: show a progress bar.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.
        """
        return self._sample(num_images, steps, seed, batch_size, progress)
