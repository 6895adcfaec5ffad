"""Which of several processes this is, as the launcher that started it tells."""

import os
from typing import NamedTuple

import torch

from lit_mbldm.errors import InputError
from lit_mbldm.parallel.cores import cores

# what tells rank, number of processes and rank on this machine, with defaults
_TORCHRUN = {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "0"}
_SLURM = {"SLURM_PROCID": "", "SLURM_NTASKS": "", "SLURM_LOCALID": "0"}


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
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        names = _TORCHRUN
    elif "SLURM_PROCID" in os.environ and "SLURM_NTASKS" in os.environ:  # a salloc shell: no rank
        names = _SLURM
    else:
        return Place(0, 1, 0)
    found = {name: os.environ.get(name, default) for name, default in names.items()}
    if all(text.isdecimal() for text in found.values()):
        place = Place(*map(int, found.values()))
        if place.rank < place.world_size:
            return place
    rank, world_size, _ = names
    given = ", ".join(f"{name}={text!r}" for name, text in found.items())
    raise InputError(
        f"Expected {rank} from 0 to {world_size} - 1, got {given}. Start the processes with"
        " torchrun or srun, or unset these variables to work alone."
    )


def own_cores() -> int:
    """Cores that this process may keep busy, its share where torchrun started several."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if local.isdecimal() and int(local) > 1:  # torchrun gives each process one thread
        return max(cores() // int(local), 1)
    return torch.get_num_threads()  # of the cores it may run on, or OMP_NUM_THREADS


def own_device(name: str, local_rank: int) -> torch.device:
    """The device of this name; of several GPUs, process i takes number i modulo their number.

    Raises:
        InputError: the device cannot be used.
    """
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} cannot be used: {error}") from error
