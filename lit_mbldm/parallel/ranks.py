"""What processes tell each other; each function is a no-op in a single process.

Every process must call them in the same order, and all but the values may not differ.
"""

from typing import TypeVar

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

T = TypeVar("T")


def _alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized())


def is_first() -> bool:
    """Whether this is the first process, or the only one."""
    return _alone() or distributed.get_rank() == 0


def gather_rows(rows: Tensor, device: torch.device) -> Tensor:
    """Join the rows (n, …) of every process, in order of rank, on the CPU: (Σn, …).

    n may differ and be 0; `device` is what the processes communicate by.
    """
    if _alone():
        return rows.cpu()
    return torch.cat([part.cpu() for part in gather_all_tensors(rows.to(device))])


def sum_ranks(values: Tensor, device: torch.device) -> Tensor:
    """Sum values of one shape over the processes; on the CPU."""
    if _alone():
        return values.cpu()
    total = values.to(device, copy=True)
    distributed.all_reduce(total)
    return total.cpu()


def from_first(value: T, device: torch.device) -> T:
    """The value that the first process gave, whatever the others gave."""
    if _alone():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=device)
    return box[0]


def all_equal(value: object) -> bool:
    """Whether every process gives the same value."""
    if _alone():
        return True
    values: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return all(other == value for other in values)


def leave() -> None:
    """Destroy the process group; gloo's threads abort a process that ends while they run."""
    if not _alone():
        distributed.destroy_process_group()
