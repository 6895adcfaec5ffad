"""Sample images during and after training."""

import math
import shlex
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image
from torch import Tensor

from lit_mbldm.pictures import beside, grid, save, to_pil, to_tensor
from lit_mbldm.training.callbacks.drawing import diffusion_model
from lit_mbldm.training.callbacks.figures import draw_paths, draw_temperatures
from lit_mbldm.training.diffusion import CategoricalDiffusion, DiffusionModule
from lit_mbldm.training.options import SampleOptions

_FEW = 4
_TEMPERATURES = (0.0, 0.1, 1.0, 2.0)


class SampleImages(L.Callback):
    """Draw samples while training and, beside real images, at the end of fit.

    Into `<log_dir>/pictures/` and to TensorBoard go a grid, four samples on their way from noise
    (figure 7 of Scribano et al. 2023) and, of a categorical model, four samples at each of four
    temperatures (figure 9); the last grid is `<log_dir>/samples.png`.

    Args:
        num_images: samples in a grid.
        options: how they are drawn; the seed is the same every time. But for seed and refiner they
            become the model's own, which checkpoints and entries keep.
        every_n_steps: steps from one grid to the next; None draws at every validation.
    """

    def __init__(
        self,
        num_images: int = 16,
        options: SampleOptions | None = None,
        every_n_steps: int | None = None,
    ) -> None:
        self.num_images = num_images
        self.options = options or SampleOptions()
        self.every_n_steps = every_n_steps
        self._drawn = 0
        self._real: Tensor | None = None
        self._folder = Path()
        self._settled = self.options

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Agree on a folder, and check the options before hours are spent.

        Raises:
            InputError: no diffusion model, or an option that it does not take or out of range.
        """
        self._folder = log_folder(trainer)
        model = diffusion_model(pl_module)
        self._settled = model.settle(self.options)
        model.sampling = self.options.over(model.sampling)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first real images to show beside the samples."""
        if self._real is None:
            found = batch.get("images")
            images = pl_module.codec.decode(batch["codes"]) if found is None else found
            self._real = images[: self.num_images].cpu()

    @rank_zero_only
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sample while averaged weights are in place, which validation sees to."""
        if self.every_n_steps is None and not batch_idx and not trainer.sanity_checking:
            self._show(trainer, pl_module)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample every n steps, from averaged weights if there are any."""
        step = trainer.global_step
        if self.every_n_steps is None or step % self.every_n_steps or step == self._drawn:
            return
        self._drawn = step  # the next batches may add to the same step
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        averages = [one for one in callbacks if isinstance(one, WeightAveraging)]
        for one in averages:
            one.on_validation_epoch_start(trainer, pl_module)
        self._show(trainer, pl_module)
        for one in averages:
            one.on_validation_epoch_end(trainer, pl_module)

    def _show(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        for name, picture in self._draw(pl_module).items():
            save(picture, self._folder / "pictures" / f"{name}-{trainer.global_step:07d}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, to_tensor(picture), trainer.global_step)

    def _draw(self, model: DiffusionModule) -> dict[str, Image]:
        pictures = {"samples": to_pil(grid(self._sample(model)))}
        pictures["path"] = draw_paths(model, _FEW, self._settled)
        if isinstance(model, CategoricalDiffusion):
            pictures["temperatures"] = draw_temperatures(model, _FEW, _TEMPERATURES, self._settled)
        return pictures

    def _sample(self, model: DiffusionModule, progress: bool = False) -> Tensor:
        return torch.cat(list(model.batches(self.num_images, self._settled, progress=progress)))

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write samples.png and print the command that samples from the checkpoint."""
        if self._real is None:  # resumed where nothing was left to do
            return
        samples = self._sample(pl_module, progress=True)
        columns = math.ceil(math.sqrt(self.num_images))
        blank = torch.full_like(samples, 255)
        blank[: len(self._real)] = self._real
        path = self._folder / "samples.png"
        save(beside(grid(samples, columns), grid(blank, columns)), path)
        print(f"\nSamples (left) beside real images (right): {path}")
        if checkpoint := saved_checkpoint(trainer):
            print(
                f"Make more: lit-mbldm sample {checkpoint} -n 16 {self.options.flags(seed=1)}"
                " --out grid.png"
            )


def log_folder(trainer: L.Trainer) -> Path:
    """Where pictures go; every rank must ask, since it is broadcast."""
    return Path(_relative(trainer.log_dir or trainer.default_root_dir))


def saved_checkpoint(trainer: L.Trainer) -> str:
    """The last or the best checkpoint of a run as a word of a shell, or nothing."""
    callback = trainer.checkpoint_callback
    path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
    return shlex.quote(_relative(path)) if path else ""


def _relative(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
