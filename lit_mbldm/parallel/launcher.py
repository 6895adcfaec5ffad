"""Which of several processes this is, as its launcher tells, and its share of the machine."""

import os
from typing import TYPE_CHECKING, NamedTuple

from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    import torch

# rank, number of processes, rank on this machine: of torchrun, of SLURM
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


class Place(NamedTuple):
    """Number of this process, how many there are, and its number on this machine."""

    rank: int
    world_size: int
    local_rank: int


def read_place() -> Place:
    """This process's place by torchrun's variables, else by SLURM's, else alone.

    Raises:
        InputError: variables that are no numbers or contradict each other.
    """
    for names in _LAUNCHERS:
        if not all(name in os.environ for name in names[:2]):  # a shell of salloc has no rank
            continue
        texts = [os.environ.get(name, "0") for name in names]
        if all(text.isdecimal() for text in texts) and int(texts[0]) < int(texts[1]):
            return Place(*map(int, texts))
        given = ", ".join(f"{name}={text!r}" for name, text in zip(names, texts, strict=True))
        raise InputError(
            f"Expected {names[0]} from 0 to {names[1]} - 1, got {given}. Start the processes with"
            " torchrun or srun, or unset these variables to work alone."
        )
    return Place(0, 1, 0)


def cores() -> int:
    """Number of this machine's cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_cores() -> int:
    """Cores that this process may keep busy, its share where torchrun started several."""
    import torch

    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if local.isdecimal() and int(local) > 1:  # torchrun gives each process one thread
        return max(cores() // int(local), 1)
    return torch.get_num_threads()  # of the cores it may run on, or OMP_NUM_THREADS


def own_device(name: str, local_rank: int) -> "torch.device":
    """The device of this name; of several GPUs, process i takes number i modulo their number.

    Raises:
        InputError: the device cannot be used.
    """
    import torch

    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} cannot be used: {error}") from error
