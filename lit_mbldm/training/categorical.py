"""Training and sampling of the categorical model."""

from torch import Tensor

from lit_mbldm.codecs import IndexLatent
from lit_mbldm.processes import CategoricalProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.diffusion import DiffusionModule


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
