"""Processes that train together, on one or more machines, and take their codec from the Hub."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from entries import REPO
from loopback_hub import Hub

from lit_mbldm.zoo import push_pretrained

RANK = """
import hashlib, sys
from torch import distributed
from lit_mbldm.zoo import load_pretrained

def digest(name):
    codec = load_pretrained(name)
    arrays = [array.numpy().tobytes() for array in codec.state_dict().values()]
    return hashlib.sha256(b"".join(arrays)).hexdigest()

before = digest(sys.argv[1])
distributed.init_process_group("gloo")
inside = digest(sys.argv[2])
found = [None] * distributed.get_world_size()
distributed.all_gather_object(found, (before, inside))
assert len(set(found)) == 1, found
print(*found[0])
distributed.destroy_process_group()
"""
FIT = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_a_file_is_fetched_once_a_node(hub: Hub, tmp_path: Path) -> None:
    """Two nodes of two processes, as torchrun starts them; a node has a disk of its own."""
    for name in (REPO, "org/other"):
        push_pretrained("opq-32-8-8", name)
    hub.requests.clear()
    hub.faults.slow("GET .*/objects/", seconds=0.5, times=None)
    port = free_port()
    ranks = []
    for rank in range(4):
        place = {
            "RANK": str(rank),
            "WORLD_SIZE": "4",
            "LOCAL_RANK": str(rank % 2),
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        environment = hub.environment(tmp_path / f"node{rank // 2}") | place
        command = [sys.executable, "-c", RANK, REPO, "org/other"]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4
    assert len({*" ".join(printed).split()}) == 1
    assert len(hub.asked("GET .*/objects/")) == 4  # two repositories, two nodes
    assert len(hub.asked("GET .*/config.json")) == 4


@pytest.mark.slow
def test_the_processes_of_a_fit_fetch_their_codec_once(hub: Hub, tmp_path: Path) -> None:
    push_pretrained("opq-32-8-8", REPO)
    hub.requests.clear()
    options = {
        "model.codec": REPO,
        "model.image_size": "32",
        "model.denoiser.base_channels": "16",
        "model.denoiser.blocks_per_level": "1",
        "data.crop_size": "32",
        "data.batch_size": "4",
        "data.crops_per_epoch": "8",
        "trainer.accelerator": "cpu",
        "trainer.devices": "2",
        "trainer.strategy": "ddp",
        "trainer.fast_dev_run": "1",
        "trainer.limit_val_batches": "0",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "lit_mbldm", "fit", "--config", str(FIT)]
        + [f"--{name}={value}" for name, value in options.items()],
        cwd=tmp_path,
        env=hub.environment(tmp_path / "node") | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(hub.asked("HEAD .*/config.json")) == 2  # both asked
    assert len(hub.asked("GET .*/objects/")) == 1
