"""What Lightning's test and predict share: telling the model how to draw."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from lit_mbldm.errors import InputError
from lit_mbldm.training.callbacks.numbers import SampleNumbers
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import Refiner


class DrawSamples(L.Callback):
    """Tells the model how to draw; the base of what scores samples and what writes them.

    Args:
        num_images: samples to draw, of all processes together.
        batch_size: drawn at once in each process.
        options: how they are drawn.
    """

    def __init__(
        self, num_images: int, batch_size: int = 64, options: SampleOptions | None = None
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.options = options or SampleOptions()
        self.folder = Path()

    def numbers(self, training: L.LightningDataModule | None = None) -> SampleNumbers:
        """The data module to give to Trainer.test or Trainer.predict with this callback."""
        return SampleNumbers(self.num_images, self.batch_size, training)

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Agree on a folder, and check model and options before hours are spent.

        Raises:
            InputError: no diffusion model, or an option that it does not take or out of range.
        """
        # every rank must ask for log_dir, which is broadcast
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        model = diffusion_model(pl_module)
        refiner = model.settle(self.options).refiner
        model.test_options = replace(self.options, refiner=refiner)

    def drawn_with(self, model: DiffusionModule) -> dict[str, Any]:
        """How the samples were drawn, by name, for people."""
        refiner = self.options.refiner
        name = type(refiner).__name__ if isinstance(refiner, Refiner) else refiner
        drawn = model.settle(model.test_options).given()
        return {"steps": drawn["steps"], "seed": self.options.seed, **drawn, "refiner": name}


def diffusion_model(module: Any) -> DiffusionModule:
    """The module itself.

    Raises:
        InputError: it is no diffusion model.
    """
    if not isinstance(module, DiffusionModule):
        raise InputError(f"Samples need a diffusion model, got a {type(module).__name__}.")
    return module
