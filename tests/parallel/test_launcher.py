import os

import pytest
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.parallel.launcher import Place, own_cores, own_device, read_place

NAMES = [
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
]
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Place(0, 1, 0)),
        (TORCHRUN, Place(5, 8, 1)),
        (SLURM, Place(3, 4, 2)),
        ({**SLURM, **TORCHRUN}, Place(5, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2, 0)),
        ({"SLURM_NTASKS": "4"}, Place(0, 1, 0)),
    ],
)
def test_the_launchers_variables_are_read(
    variables: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    assert read_place() == place


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"RANK": "1"}, "WORLD_SIZE=''"),
        ({"WORLD_SIZE": "2"}, "RANK=''"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK='2', WORLD_SIZE='2'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1'"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one'"),
        ({**SLURM, "SLURM_NTASKS": "0"}, "SLURM_NTASKS='0'"),
        ({**SLURM, "SLURM_LOCALID": "x"}, "SLURM_LOCALID='x'"),
    ],
)
def test_variables_that_cannot_be_right_are_named(
    variables: dict[str, str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    with pytest.raises(InputError, match=word):
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
