"""Training and sampling of the categorical model."""

from torch import Tensor

from lit_mbldm.codecs import IndexLatent
from lit_mbldm.processes import CategoricalProcess
from lit_mbldm.randomness import SampleStreams
from lit_mbldm.samplers import Sampler
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import Refiner


class CategoricalDiffusion(DiffusionModule):
    """Diffusion with a categorical reverse process (Scribano et al. 2023, section 4.2.3).

    Args as for `DiffusionModule`.
    """

    process: CategoricalProcess
    process_class = CategoricalProcess
    latent_class = IndexLatent

    def process_loss(
        self, z0: Tensor, t: Tensor, generator: SampleStreams, images: Tensor | None
    ) -> Tensor:
        """The categorical loss of each sample, (B,)."""
        return self.process.loss(self.denoiser, z0, t, generator, self.codec, images)

    def sample(
        self,
        num_images: int,
        steps: int = 50,
        seed: int = 0,
        batch_size: int = 16,
        progress: bool = False,
        sampler: Sampler = "ddpm",
        eta: float = 0.0,
        refiner: Refiner | bool = True,
        temperature: float = 1.0,
    ) -> Tensor:
        """Generate images; image i depends on (seed, i) alone.

        Args:
            num_images: N.
            steps: reverse steps, at most T.
            seed: of the noise.
            batch_size: images made at once.
            progress: show a progress bar.
            sampler: "ddpm" (the paper's algorithm 2), "ddim" or "dpm++" (DPM-Solver++ 2M); the
                latter two follow the expected z_0 and draw categories at the end.
            eta: of ddim, from 0 (no noise) to 1.
            refiner: to pass the decoded images through; True is the one that came with the model,
                if any, False none.
            temperature: γ of the categories' softmax; 0 takes the most probable codeword.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.

        Raises:
            InputError: numbers out of range, or eta with another sampler than ddim.
        """
        return self._sample(
            num_images,
            batch_size,
            progress,
            steps,
            seed,
            refiner,
            sampler=sampler,
            eta=eta,
            temperature=temperature,
        )
