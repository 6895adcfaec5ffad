"""What Lightning's test and predict share: which samples are drawn where, and how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.options import SampleOptions


class DrawSamples(L.Callback):
    """Tells the model how to draw; the base of what scores samples and what writes them."""

    def __init__(
        self, num_images: int, batch_size: int = 64, options: SampleOptions | None = None
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.options = options or SampleOptions()
        self.folder = Path()

    def numbers(self, training: L.LightningDataModule | None = None) -> "SampleNumbers":
        """The data module to give to Trainer.test or Trainer.predict with this callback."""
        return SampleNumbers(self.num_images, self.batch_size, training)

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Agree on a folder, and check model and options before hours are spent."""
        # every rank must ask for log_dir, which is broadcast
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        diffusion_model(pl_module).set_test_options(self.options)


class SampleNumbers(L.LightningDataModule):
    """The numbers of samples to draw, as batches (B,) int64.

    Of R processes, process r draws r, r + R, r + 2R and so on, but what is done. `training` is the
    data module of the images that scores compare with.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        training: L.LightningDataModule | None = None,
        done: Callable[[int], bool] = lambda number: False,
    ) -> None:
        super().__init__()
        self.num_images = num_images
        self.batch_size = batch_size
        self.training = training
        self.done = done

    def test_dataloader(self) -> "NumberLoader":
        """This process's numbers; raises InputError for fewer images than processes."""
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        if self.num_images < world_size or self.batch_size < 1:
            raise InputError(
                f"Expected num_images of at least {world_size}, the number of processes, and a"
                f" batch_size of at least 1, got {self.num_images} and {self.batch_size}."
            )
        numbers = [n for n in range(rank, self.num_images, world_size) if not self.done(n)]
        return NumberLoader(torch.tensor(numbers).split(self.batch_size) if numbers else ())

    predict_dataloader = test_dataloader


class NumberLoader(list[Tensor]):
    """Batches of numbers, (B,) int64.

    No DataLoader, into which Lightning would put a sampler that repeats numbers to even out ranks.
    """

    def __len__(self) -> int:
        """Batches; at least 1, as Lightning leaves out the hooks of an empty loader."""
        return max(super().__len__(), 1)


def diffusion_model(module: Any) -> DiffusionModule:
    """The module itself; raises InputError unless it is a diffusion model."""
    if not isinstance(module, DiffusionModule):
        raise InputError(
            f"Samples need a diffusion model, got a {type(module).__name__}. `lightning validate`"
            " measures a refiner."
        )
    return module
