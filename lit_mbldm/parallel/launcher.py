"""Which of several processes this is, as the launcher that started it tells."""

import os
from typing import NamedTuple

import torch

from lit_mbldm.errors import InputError
from lit_mbldm.parallel.cores import cores

# rank, number of processes, rank on this machine
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


class Place(NamedTuple):
    """Number of this process, how many there are, and its number on this machine."""

    rank: int
    world_size: int
    local_rank: int


def read_place() -> Place:
    """This process's place by torchrun's variables, else by SLURM's, else alone.

    Raises:
        InputError: variables that are no numbers, contradict each other or are incomplete.
    """
    if any(name in os.environ for name in _TORCHRUN[:2]):
        names = _TORCHRUN
    elif all(name in os.environ for name in _SLURM[:2]):  # a shell of salloc has no rank
        names = _SLURM
    else:
        return Place(0, 1, 0)
    texts = [os.environ.get(names[0], ""), os.environ.get(names[1], "")]
    texts.append(os.environ.get(names[2], "0"))
    if all(text.isdecimal() for text in texts):
        place = Place(*map(int, texts))
        if place.rank < place.world_size:
            return place
    given = ", ".join(f"{name}={text!r}" for name, text in zip(names, texts, strict=True))
    raise InputError(
        f"Expected {names[0]} from 0 to {names[1]} - 1, got {given}. Start the processes with"
        " torchrun or srun, or unset these variables to work alone."
    )


def own_cores() -> int:
    """Cores that this process may keep busy, its share where torchrun started several."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if local.isdecimal() and int(local) > 1:  # torchrun gives each process one thread
        return max(cores() // int(local), 1)
    return torch.get_num_threads()  # of the cores it may run on, or OMP_NUM_THREADS


def own_device(name: str, local_rank: int) -> torch.device:
    """The device of this name; of several GPUs number `local_rank`, counted round.

    Raises:
        InputError: the device cannot be used.
    """
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} cannot be used: {error}") from error
