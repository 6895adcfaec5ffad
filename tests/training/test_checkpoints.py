import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.training.resume.checkpoint_files import AtomicCheckpointIO

SAVE_FOREVER = """
import itertools, sys, torch
from lit_mbldm.training.resume.checkpoint_files import AtomicCheckpointIO
for number in itertools.count():
    numbers = torch.full((300_000,), number)
    AtomicCheckpointIO().save_checkpoint({"number": number, "numbers": numbers}, sys.argv[1])
    print(number, flush=True)
"""


def test_killed_at_any_moment_of_saving_a_whole_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        written = [2, *map(int, process.stdout.read().split())]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        found = AtomicCheckpointIO().load_checkpoint(path)
        assert found["number"] - written[-1] in (0, 1)
        assert (found["numbers"] == found["number"]).all()
    AtomicCheckpointIO().save_checkpoint({"number": 0}, tmp_path / "epoch=1.ckpt")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["epoch=1.ckpt", "last.ckpt"]


def test_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"number": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    too_much = {"numbers": torch.zeros(1_000_000)}
    try:
        for name in ("last.ckpt", "epoch=1.ckpt", "new/last.ckpt"):
            with pytest.raises(OSError, match=rf"Cannot save .*/{name}: .* are kept"):
                writer.save_checkpoint(too_much, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.load_checkpoint(path) == {"number": 1}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["last.ckpt", "new"]


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"numbers": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"last\.ckpt is damaged or no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_other_file_systems_and_missing_files(tmp_path: Path) -> None:
    path = "memory://checkpoints/last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"number": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"number": 3}
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("weights_only", [None, False])
def test_a_checkpoint_of_a_web_server_runs_no_code(
    server: Any, monkeypatch: pytest.MonkeyPatch, weights_only: bool | None
) -> None:
    monkeypatch.chdir(server.folder)
    torch.save({"state_dict": Payload()}, "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt is damaged or no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(f"{server.url}/last.ckpt", weights_only=weights_only)
    assert not (server.folder / "ran").exists()


def test_two_addresses_with_one_base_name(server: Any) -> None:
    for number in (1, 2):
        path = server.folder / f"{number}" / "last.ckpt"
        AtomicCheckpointIO().save_checkpoint({"number": number}, path)
        found = AtomicCheckpointIO().load_checkpoint(f"{server.url}/{number}/last.ckpt")
        assert found == {"number": number}
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(f"{server.url}/3/last.ckpt")


def test_a_server_that_does_not_answer_is_not_called_damage() -> None:
    with pytest.raises(OSError, match="connect"):
        AtomicCheckpointIO().load_checkpoint("http://127.0.0.1:1/last.ckpt")
