"""The kinds of diffusion models: each takes the processes and latents that it is for."""

import math
from typing import Any

from torch import Tensor

from lit_mbldm.codecs import BitLatent, IndexLatent
from lit_mbldm.errors import InputError
from lit_mbldm.processes import (
    CategoricalProcess,
    ConsistencyProcess,
    GaussianProcess,
    MultiStageProcess,
)
from lit_mbldm.processes.bernoulli import BernoulliForward
from lit_mbldm.training.diffusion import DiffusionModule


class ContinuousDiffusion(DiffusionModule):
    """DDPM on codes read as numbers (Scribano et al. 2023, section 4.2.2); args as its base's."""

    process_class = GaussianProcess


class StageDiffusion(DiffusionModule):
    """Diffusion whose signal gets coarser in stages (f-DM, Gu et al. 2022, arXiv 2210.04955).

    Args as for `DiffusionModule`. Its own system is on pixels, with a `PixelCodec`.
    """

    process_class = MultiStageProcess


class CategoricalDiffusion(DiffusionModule):
    """Diffusion with a categorical reverse process (Scribano et al. 2023, section 4.2.3).

    Args as for `DiffusionModule`.
    """

    process_class = CategoricalProcess
    latent_class = IndexLatent


class BernoulliDiffusion(DiffusionModule):
    """Diffusion on the bits of codes (Wang et al. 2023, arXiv 2304.04820); args as its base's."""

    process_class = BernoulliForward
    latent_class = default_latent = BitLatent


class ConsistencyDiffusion(DiffusionModule):
    """Tuning of a `ContinuousDiffusion` for few steps (Geng et al. 2024, arXiv 2406.14548).

    Args as for `DiffusionModule`; the process is a `ConsistencyProcess`.

    Raises:
        InputError: as `DiffusionModule`; when a run starts that has no end.
    """

    process: ConsistencyProcess
    process_class = ConsistencyProcess
    tells_progress = True

    def on_fit_start(self) -> None:
        """Refuse a run without an end; raises InputError."""
        super().on_fit_start()
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise InputError("Consistency tuning needs a run of known length: set max_steps.")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell the process how far training is."""
        super().on_train_batch_start(batch, batch_idx)
        self.process.progress = self.global_step / self.trainer.estimated_stepping_batches

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the closest times, whatever training is at."""
        self.process.progress = 1.0
        super().validation_step(batch, batch_idx)
