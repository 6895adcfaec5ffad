"""Drawing numbered samples with Lightning's test and predict, shared out among processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.samplers import time_grid
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.options import SampleOptions


class SampleNumbers(L.LightningDataModule):
    """The numbers of samples to draw, as batches (B,) int64.

    Of R processes, process r draws r, r + R, r + 2R and so on.

    Args:
        num_images: N.
        batch_size: samples a batch and process.
        training: the data module of the images that scores compare with.

    Raises:
        InputError: fewer images than processes, or an empty batch.
    """

    def __init__(
        self, num_images: int, batch_size: int, training: L.LightningDataModule | None = None
    ) -> None:
        super().__init__()
        self.num_images = num_images
        self.batch_size = batch_size
        self.training = training

    def test_dataloader(self) -> "NumberLoader":
        """This process's numbers."""
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        if self.num_images < world_size or self.batch_size < 1:
            raise InputError(
                f"Expected num_images of at least {world_size}, the number of processes, and a"
                f" batch_size of at least 1, got {self.num_images} and {self.batch_size}."
            )
        return NumberLoader(range(rank, self.num_images, world_size), self.batch_size)

    predict_dataloader = test_dataloader


class NumberLoader:
    """Numbers in batches (B,) int64; the last may be smaller.

    No DataLoader, into which Lightning would put a sampler that repeats numbers to even out ranks.
    """

    def __init__(self, numbers: range, batch_size: int) -> None:
        self.numbers = numbers
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self.numbers) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.tensor(self.numbers).split(self.batch_size))


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
        if not isinstance(pl_module, DiffusionModule):
            raise InputError(f"Samples need a diffusion model, got a {type(pl_module).__name__}.")
        self.options.arguments(pl_module)
        time_grid(pl_module.process.num_timesteps, self.options.steps)
