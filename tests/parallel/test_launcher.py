import os

import pytest
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.parallel.launcher import Place, own_cores, own_device, read_place

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*TORCHRUN, *SLURM, "LOCAL_WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place(0, 1, 0)),
        (TORCHRUN, Place(5, 8, 1)),
        (SLURM, Place(3, 4, 2)),
        ({**SLURM, **TORCHRUN}, Place(5, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2, 0)),
        ({"SLURM_NTASKS": "4"}, Place(0, 1, 0)),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK='2', WORLD_SIZE='2'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1'"),
        ({**SLURM, "SLURM_NTASKS": "0"}, "SLURM_NTASKS='0'"),
        ({**SLURM, "SLURM_LOCALID": "x"}, "SLURM_LOCALID='x'"),
    ],
)
def test_the_launchers_variables_are_read_and_named_where_they_cannot_be_right(
    variables: dict[str, str], expected: Place | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if isinstance(expected, Place):
        assert read_place() == expected
    else:
        with pytest.raises(InputError, match=expected):
            read_place()


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_cores() == torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for local, cores in (("4", 4), ("16", 1), ("32", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert own_cores() == cores


def test_an_unusable_device_is_named() -> None:
    assert own_device("cpu", 3) == torch.device("cpu")
    for name in ("nowhere", "cuda:99"):
        with pytest.raises(InputError, match=name):
            own_device(name, 0)
