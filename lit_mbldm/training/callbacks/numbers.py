"""The numbers of samples to draw, shared out among processes."""

from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch import Tensor

from lit_mbldm.errors import InputError


class SampleNumbers(L.LightningDataModule):
    """The numbers of samples to draw, as batches (B,) int64.

    Of R processes, process r draws r, r + R, r + 2R and so on.

    Args:
        num_images: N.
        batch_size: samples a batch and process.
        training: the data module of the images that scores compare with.
        done: tells which numbers to leave out.
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
        """This process's numbers.

        Raises:
            InputError: fewer images than processes, or an empty batch.
        """
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        if self.num_images < world_size or self.batch_size < 1:
            raise InputError(
                f"Expected num_images of at least {world_size}, the number of processes, and a"
                f" batch_size of at least 1, got {self.num_images} and {self.batch_size}."
            )
        numbers = [n for n in range(rank, self.num_images, world_size) if not self.done(n)]
        return NumberLoader(numbers, self.batch_size)

    predict_dataloader = test_dataloader


class NumberLoader:
    """Numbers in batches (B,) int64; the last may be smaller.

    No DataLoader, into which Lightning would put a sampler that repeats numbers to even out ranks.
    """

    def __init__(self, numbers: list[int], batch_size: int) -> None:
        self.numbers = numbers
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Batches; at least 1, as Lightning leaves out the hooks of an empty loader."""
        return max(-(-len(self.numbers) // self.batch_size), 1)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.tensor(self.numbers).split(self.batch_size) if self.numbers else ())
