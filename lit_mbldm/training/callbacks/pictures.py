"""Pictures of samples and of refined images, during and after training, and how often."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.pictures import beside, grid, save, table, to_pil, to_tensor
from lit_mbldm.training.callbacks.samples import diffusion_model
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.grids import path_grid, temperature_grid
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import Refiner, RefinerModule

_FEW = 4
_KEPT = 4  # labelled real images a sample
_TEMPERATURES = (0.0, 0.1, 1.0, 2.0)
_CLASSES, _CLASS_COLUMNS = 12, 16  # shown at most


def class_columns(model: DiffusionModule, options: SampleOptions) -> int | None:
    """Columns of a grid with a column a class; None where that is not to be had."""
    count = len(model.class_names or ())
    return count if options.label is None and 1 < count <= _CLASS_COLUMNS else None


class _FitPictures(L.Callback):
    """Keeps the folder of the run and its first real images, to write a picture at its end.

    Of labelled images it keeps more, so that there are some of each class.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self._real = torch.empty(0)  # (N, 3, H, W) uint8
        self._labels = torch.empty(0, dtype=torch.int64)  # (N,), where there are any

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Agree on a folder; every rank must ask, since it is broadcast."""
        self.folder = Path(_relative(trainer.log_dir or trainer.default_root_dir))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first real images, decoded ones where the data has codes only."""
        labels, kept = batch.get("label"), len(self._real)
        missing = self.num_images * (1 if labels is None else _KEPT) - kept
        if missing > 0 and (labels is not None or not kept):
            found = batch.get("images")
            images = pl_module.codec.decode(batch["codes"]) if found is None else found
            images = images[:missing].cpu()
            self._real = torch.cat([self._real, images]) if kept else images
            if labels is not None:
                self._labels = torch.cat([self._labels, labels[:missing].cpu()])

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the picture, and print the command that uses the model."""
        if len(self._real):  # else resumed where nothing was left to do
            self.write(trainer, pl_module, self._real)

    def write(self, trainer: L.Trainer, model: Any, real: Tensor) -> None:
        """Write the picture of a model and of real images (N, 3, H, W) uint8."""
        raise NotImplementedError


class SampleImages(_FitPictures):
    """Draw samples while training and, beside real images, at the end of fit.

    Into `<log_dir>/pictures/` and to TensorBoard go a grid, four samples on their way from noise
    (figure 7 of Scribano et al. 2023) and, of codes or bits, four samples at each of four
    temperatures (figure 9); the last grid is `<log_dir>/samples.png`. A grid of a model with
    classes has a row for each of the first twelve.

    Args:
        num_images: samples in a grid, at most.
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
        super().__init__(num_images)
        self.options = options or SampleOptions()
        self.every_n_steps = every_n_steps
        self._drawn = 0

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Check model and options before hours are spent."""
        super().setup(trainer, pl_module, stage)
        model = diffusion_model(pl_module)
        if stage in ("fit", "validate"):  # the others draw nothing here
            model.configure_model()  # classes come with the data, which are set up first
            self._settled = model.settle(self.options)
        model.sampling = self.options.over(model.sampling)

    @rank_zero_only
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: int
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

    def _show(self, trainer: L.Trainer, model: DiffusionModule) -> None:
        pictures = {
            "samples": to_pil(grid(*self._sample(model))),
            "path": path_grid(model, _FEW, self._settled),
        }
        if model.process.has_temperature:
            pictures["temperatures"] = temperature_grid(model, _FEW, _TEMPERATURES, self._settled)
        for name, picture in pictures.items():
            save(picture, self.folder / "pictures" / f"{name}-{trainer.global_step:07d}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, to_tensor(picture), trainer.global_step)

    def _rows(self, model: DiffusionModule) -> int:
        """Classes that have a row in the grid; 0 where it has none."""
        rows = min(len(model.class_names or ()), _CLASSES, self.num_images)
        return rows if self._settled.label is None and rows > 1 else 0

    def _sample(self, model: DiffusionModule, progress: bool = False) -> tuple[Tensor, int]:
        """Samples (N, 3, H, W), and how many make a row of the grid."""
        options, count = self._settled, self.num_images
        columns = math.ceil(math.sqrt(count))
        if rows := self._rows(model):
            columns = count // rows
            count = rows * columns
            options = replace(options, label=[n // columns for n in range(count)])
        return torch.cat(list(model.batches(count, options, progress=progress))), columns

    def write(self, trainer: L.Trainer, model: Any, real: Tensor) -> None:
        """Write samples beside the real images."""
        samples, columns = self._sample(model, progress=True)
        blank = torch.full_like(samples, 255)
        for row in range(self._rows(model)):
            of_class = real[self._labels == row][:columns]
            blank[row * columns :][: len(of_class)] = of_class
        if not self._rows(model):
            blank[: len(real)] = real[: len(samples)]
        path = self.folder / "samples.png"
        save(beside(grid(samples, columns), grid(blank, columns)), path)
        print(f"\nSamples (left) beside real images (right): {path}")
        if checkpoint := _saved_checkpoint(trainer):
            flags = self.options.flags(seed=1)
            print(f"Make more: lit-mbldm sample {checkpoint} -n 16 {flags} --out grid.png")
            print(f"Play with it in the browser: lit-mbldm demo {checkpoint}")


class RefineImages(_FitPictures):
    """Write images, decoded and refined, to `<log_dir>/refined.png` at the end of fit.

    Args:
        num_images: rows of the picture, of the first batch at most.
    """

    def __init__(self, num_images: int = 4) -> None:
        super().__init__(num_images)

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Refuse a model that is no refiner."""
        if not isinstance(pl_module, RefinerModule):
            raise InputError(f"RefineImages needs a Refiner, got a {type(pl_module).__name__}.")
        super().setup(trainer, pl_module, stage)

    def write(self, trainer: L.Trainer, model: Any, real: Tensor) -> None:
        """Write the images beside what codec and refiner make of them."""
        real = real.to(model.device)
        with torch.no_grad():
            decoded = model.codec.decode(model.codec.encode(real))
        shown = torch.stack([real, decoded, model.refine(decoded)], dim=1)  # (B, 3, 3, H, W)
        path = self.folder / "refined.png"
        save(table(shown, columns=("original", "decoded", "refined")), path)
        print(f"\nOriginal, decoded and refined images: {path}")
        if checkpoint := _saved_checkpoint(trainer):
            decoder = isinstance(model, Refiner) and model.noise_range[1] == 0
            sample = f"lit-mbldm sample MODEL -n 16 --refiner {checkpoint} --out grid.png"
            print("Use it:", f"lit-mbldm codec decoder {checkpoint} OUT" if decoder else sample)


def sample_every(trainer: L.Trainer, steps: int) -> None:
    """Set the steps from one grid to the next; raises InputError without a SampleImages."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    drawers = [one for one in callbacks if isinstance(one, SampleImages)]
    if not drawers:
        raise InputError("sample_every needs a SampleImages in trainer.callbacks.")
    for one in drawers:
        one.every_n_steps = steps


def _saved_checkpoint(trainer: L.Trainer) -> str:
    """The last or the best checkpoint of a run as a word of a shell, or nothing."""
    callback = trainer.checkpoint_callback
    path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
    return shlex.quote(_relative(path)) if path else ""


def _relative(path: str) -> str:
    return path.removeprefix(f"{Path.cwd()}/")
