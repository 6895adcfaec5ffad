"""A loader of batches that tells its dataset the epoch."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from lit_mbldm.errors import InputError
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent


class EpochDataset(Protocol):
    """An iterable dataset of whole batches that depends on an epoch set from outside."""

    epoch: int

    def __len__(self) -> int:
        """Batches an epoch."""

    def __iter__(self) -> Iterator[dict[str, Any] | InputError]:
        """Batches, or the error that ends them.

        "skipped" in a batch is the number of samples that could not be read on the way.
        """


def check_batches(batches: int, name: str, batch_size: int, world_size: int, samples: int) -> None:
    """Raise InputError where an epoch has no batch for every process."""
    if batches == 0:
        raise InputError(
            f"Expected at least {batch_size * world_size} samples in {name} (batch_size"
            f" {batch_size}, {world_size} processes), got {samples}. Lower batch_size."
        )


class EpochLoader:
    """Iterates over a dataset of batches.

    No DataLoader itself, since the dataset does the batching and the sharing out among processes
    and Lightning need not.

    Args:
        dataset: of batches.
        epoch: asked at the start of each pass.
        num_workers: processes that read ahead; 0 reads in this one.
        max_skipped: samples that may be unreadable in a pass; None for any number.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        epoch: Callable[[], int],
        num_workers: int = 0,
        max_skipped: float | None = None,
    ) -> None:
        self.dataset = dataset
        self.epoch = epoch
        self.num_workers = num_workers
        self.max_skipped = max_skipped

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.dataset.epoch = self.epoch()
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_parent,
        )
        skipped = 0
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            skipped += batch.pop("skipped", 0)
            if self.max_skipped is not None and skipped > self.max_skipped:
                raise InputError(
                    f"{skipped} samples could not be read in one epoch, at most"
                    f" {self.max_skipped:g} may be skipped; the warnings above name the reasons."
                    " Repair, copy or write the shards again, or raise max_skipped. What was"
                    " trained and written so far is kept."
                )
            yield batch
