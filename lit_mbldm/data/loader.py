"""A loader of batches that tells its dataset the epoch and resumes in the middle of one."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_mbldm.errors import InputError


class EpochDataset(Protocol):
    """An iterable dataset of whole batches that depends on an epoch set from outside."""

    epoch: int

    def __len__(self) -> int:
        """Batches an epoch."""

    def __iter__(self) -> Iterator[dict[str, Tensor] | InputError]:
        """Batches, or the error that ends them."""


class EpochLoader:
    """Iterates over a dataset of batches, with Lightning's protocol of stateful loaders.

    No DataLoader itself, since the dataset does the batching and the sharing out among processes
    and Lightning need not.

    Args:
        dataset: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
    """

    def __init__(
        self, dataset: EpochDataset, epoch: Callable[[], int], num_workers: int = 0
    ) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self._epoch = epoch
        self._position = {"epoch": -1, "batch": 0}
        self._resume: dict[str, int] | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch = self._epoch()
        self.dataset.epoch = epoch
        start = 0
        if self._resume is not None and self._resume["epoch"] == epoch:
            start = self._resume["batch"] % max(len(self), 1)
        self._resume = None
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        for batch_number, batch in enumerate(islice(loader, start, None), start + 1):
            if isinstance(batch, InputError):
                raise batch
            self._position = {"epoch": epoch, "batch": batch_number}
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of batches handed out in it."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after those batches, where the next pass is the same epoch."""
        self._resume = dict(state)
