"""Training and sampling of the categorical model."""

from torch import Tensor, nn

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.processes import CategoricalProcess
from lit_mbldm.randomness import SampleStreams
from lit_mbldm.training.diffusion import DiffusionModule


class CategoricalDiffusion(DiffusionModule):
    """Diffusion with a categorical reverse process (Scribano et al. 2023, section 4.2.3).

    Args: as `DiffusionModule`; `denoiser` returns the latent's channels times the codebook size.
    """

    process: CategoricalProcess

    def __init__(
        self,
        codec: str | PatchCodec,
        denoiser: nn.Module,
        process: CategoricalProcess,
        image_size: int,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        allow_residual: bool = False,
    ) -> None:
        super().__init__(
            codec, denoiser, process, image_size, learning_rate, betas, warmup_steps, allow_residual
        )

    def process_loss(self, z0: Tensor, t: Tensor, generator: SampleStreams) -> Tensor:
        """The categorical loss of each sample, (B,)."""
        return self.process.loss(self.denoiser, z0, t, generator, self.codec)

    def sample(
        self,
        num_images: int,
        steps: int = 50,
        seed: int = 0,
        batch_size: int = 16,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        """Generate images; image i depends on (seed, i) alone.

        Args:
            num_images: N.
            steps: reverse steps, at most T.
            seed: of the noise.
            batch_size: images made at once.
            temperature: γ of the categories' softmax; 0 takes the most probable codeword.
            progress: show a progress bar.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.
        """
        return self._sample(num_images, steps, seed, batch_size, progress, temperature=temperature)
