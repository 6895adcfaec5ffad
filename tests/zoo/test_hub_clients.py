"""Clients in other processes: of the major before, not in Python, and ranks of one training."""

import hashlib
import socket
import subprocess
import sys
import time
from pathlib import Path

from entries import REPO, loads, outcome
from loopback_hub import Hub
from torch import nn

from lit_mbldm.zoo import push_pretrained

BOTH_WAYS = """
import hashlib, sys
import huggingface_hub
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained, push_pretrained
from lit_mbldm.entries.fetch import pull

pushed = push_pretrained(sys.argv[1], "org/previous", private=True)
assert push_pretrained(sys.argv[1], "org/previous").commit == pushed.commit
pull("org/current")
model = load_pretrained("org/current")
load_pretrained("org/current", local_files_only=True)
for name in ("org/none", "org/current@none"):
    try:
        load_pretrained(name)
    except InputError as error:
        assert "has no re" in str(error), error
images = model.sample(3, steps=3, seed=11)
print(huggingface_hub.__version__, hashlib.sha256(images.numpy().tobytes()).hexdigest())
"""
RANK = """
import sys
from torch import distributed
from lit_mbldm.zoo import load_pretrained

before = load_pretrained(sys.argv[1]).fingerprint
distributed.init_process_group("gloo")
inside = load_pretrained(sys.argv[2]).fingerprint
distributed.destroy_process_group()
print(before, inside)
"""


def run(command: list[str], environment: dict[str, str], folder: Path | None = None) -> str:
    """What it printed."""
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_the_client_of_the_major_before_goes_both_ways(
    hub: Hub,
    modules: dict[str, nn.Module],
    folders: dict[str, Path],
    previous_client: Path,
    tmp_path: Path,
) -> None:
    import huggingface_hub

    push_pretrained(folders["refined"], "org/current", private=True)
    environment = hub.environment(tmp_path / "previous") | {"PYTHONPATH": str(previous_client)}
    printed = run([sys.executable, "-c", BOTH_WAYS, str(folders["refined"])], environment)
    version, sha256 = printed.split()
    assert int(version.split(".")[0]) == int(huggingface_hub.__version__.split(".")[0]) - 1
    images = outcome(modules["refined"])
    assert sha256 == hashlib.sha256(images.numpy().tobytes()).hexdigest()
    loads("org/previous", modules["refined"])
    sent, current = hub.files("org/previous"), hub.files("org/current")
    assert sent.keys() == current.keys()
    # all but the cards, which name their repositories
    assert {name for name in sent if sent[name] != current[name]} == {"README.md", "config.json"}


def test_a_file_is_fetched_once_a_node(hub: Hub, tmp_path: Path) -> None:
    """Two nodes of two processes, as torchrun starts them; a node has a disk of its own."""
    for name in (REPO, "org/other"):
        push_pretrained("opq-32-8-8", name)
    hub.requests.clear()
    hub.faults.hook("GET .*/objects/", lambda: time.sleep(0.5), times=None)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    place = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command, ranks = [sys.executable, "-c", RANK, REPO, "org/other"], []
    for rank in range(4):
        environment = hub.environment(tmp_path / f"node{rank // 2}") | place
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank % 2)}
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4
    assert len({*" ".join(printed).split()}) == 1
    assert len(hub.asked("GET .*/objects/")) == 4  # two repositories, two nodes
    assert len(hub.asked("GET .*/config.json")) == 4
