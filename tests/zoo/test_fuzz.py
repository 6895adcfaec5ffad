"""Entries damaged at random; run as a script it goes through the cases of one seed.

    python test_fuzz.py FOLDER SEED NUM_CASES

FOLDER holds whole entries. A case that ends the process leaves its damage there.
"""

import copy
import faulthandler
import json
import secrets
import struct
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.tree import describe, network_tensors
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

CASES, SECONDS, MORE_BYTES = 750, 20, 1 << 30
PARTS = (
    "codecs.PatchCodec codecs.codebooks.ProductCodebook denoisers.UNet denoisers.layers.Attention "
    "processes.CategoricalProcess training.ContinuousDiffusion training.Refiner "
    "metrics.inception.InceptionFeatures"
)
CLASSES = [*(f"lit_mbldm.{part}" for part in PARTS.split()), "torch.nn.Linear", "os.system"]
NAMES = ["PQ-4-2-2", "OPQ-8-2-2", "cosine", "v", "org/codec", "opq-32-8-8", "F64", "BF16", "U8"]
WORDS = st.sampled_from([*CLASSES, *NAMES, "../x", "", "a" * 5000]) | st.text(max_size=5)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**24, 2**31, 2**40, 10**12, 10**40])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.just([1] * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
) | st.builds(lambda name: {"class_path": name, "init_args": {}}, st.sampled_from(CLASSES))


def damage_bytes(draw: Any, data: bytes) -> bytes:
    """Put other bytes in the place of some."""
    start = draw(st.integers(0, len(data) - 1))
    length = draw(st.sampled_from([0, 1, 1, 8, 64, len(data)]))
    return data[:start] + draw(st.binary(max_size=64)) + data[start + length :]


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON tree, with each of its keys."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree) if type(tree) is list else 0)
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def damage_tree(draw: Any, tree: Any) -> Any:
    """Set, drop, add, swap or shift a value somewhere in a JSON tree."""
    tree = copy.deepcopy(tree)
    pick = st.sampled_from(range(len(list(places(tree)))))
    (container, key), (other, where) = (list(places(tree))[draw(pick)] for _ in range(2))
    old = container[key]
    match draw(st.sampled_from(["set", "drop", "add", "swap", "shift", "shift"])):
        case "drop":
            del container[key]
        case "add" if isinstance(container, dict):
            container[draw(st.sampled_from(["x", "codec", f"{key}x"]))] = draw(VALUES)
        case "swap":
            container[key], other[where] = copy.deepcopy(other[where]), copy.deepcopy(old)
        case "shift" if isinstance(old, int | float):
            container[key] = draw(st.sampled_from([old + 1, old - 1, 2 * old, -old, not old]))
        case _:
            container[key] = draw(VALUES)
    return tree


def damage_header(draw: Any, data: bytes) -> bytes:
    """Change what a safetensors file says of its tensors."""
    (size,) = struct.unpack("<Q", data[:8])
    text = json.dumps(damage_tree(draw, json.loads(data[8 : 8 + size]))).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def damage(draw: Any, folder: Path) -> bool:
    """Damage one file; tells whether the sha256 were set right again, as half of the times."""
    path = folder / draw(st.sampled_from(tiny.names(folder)))
    data = path.read_bytes()
    if draw(st.integers(0, 2)) == 0:
        path.write_bytes(damage_bytes(draw, data))
    elif path.name == tiny.CONFIG:
        path.write_text(json.dumps(damage_tree(draw, json.loads(data))))
    else:
        path.write_bytes(damage_header(draw, data))
    try:
        hidden = draw(st.booleans())
        if hidden:
            tiny.rehash(folder)
        return hidden
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return False  # no config is left that could hold them


def says(given: Any, built: Any) -> bool:
    """Whether a module's own tree is what a config asked for; what it left out is the default."""
    if isinstance(given, dict) and "class_path" in given:
        names = [str(tree["class_path"]).rpartition(".")[2] for tree in (given, built)]
        asked, found = given.get("init_args", {}), built["init_args"]
        return names[0] == names[1] and all(says(asked[key], found[key]) for key in asked)
    if isinstance(given, list) and isinstance(built, list | tuple):
        return len(given) == len(built) and all(map(says, given, built))
    return bool(given == json.loads(json.dumps(built)))


def check(module: Any, folder: Path) -> None:
    """Fail unless this is the module that lies in the folder, as another reader reads it."""
    config, tree = tiny.read(folder), describe(module)
    assert says(config["model"], tree), f"another tree: {tree}"
    assert getattr(module, "codec", module).fingerprint == config["fingerprint"]
    expected = load((folder / tiny.WEIGHTS).read_bytes())
    found = {name: value.numpy() for name, value in module.state_dict().items()}
    assert found.keys() == expected.keys()
    for name, _ in network_tensors(module):
        if expected[name].dtype == np.float16:  # loads as float32
            expected[name] = torch.from_numpy(expected[name]).float().numpy()
    for name, value in found.items():
        assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape), name
        assert value.tobytes() == expected[name].tobytes(), name
    assert not any(part.training for part in module.modules())
    refiner = getattr(module, "refiner", None)
    assert (refiner is not None) == any(name.startswith("refiner/") for name in config["sha256"])
    if refiner is not None:
        check(refiner, folder / "refiner")


def one_case(draw: Any, folder: Path, whole: dict[str, bytes]) -> str:
    """Damage, load and judge; tells the outcome."""
    for name, data in whole.items():
        (folder / name).write_bytes(data)
    kind, told = "hidden" if damage(draw, folder) else "plain", ""
    try:
        module = load_pretrained(folder)
    except InputError as error:
        told = str(error)
    if told:
        assert str(folder) in told, f"an error that names no file: {told}"
        assert len(told) < 2000, "an error without end"
        return f"{kind} refused"
    check(module, folder)
    if kind == "plain":  # then nothing has changed that counts
        now = tiny.contents(folder)
        assert {**now, tiny.CONFIG: b""} == {**whole, tiny.CONFIG: b""}, "damage unnoticed"
    return f"{kind} loaded"


def main(root: Path, number: int, num_cases: int) -> None:
    """Go through all cases, with a gigabyte, and print how many ended in which way."""
    import resource

    wholes = {folder: tiny.contents(folder) for folder in sorted(root.iterdir())}
    for folder in wholes:
        check(load_pretrained(folder), folder)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MORE_BYTES, taken + MORE_BYTES))
    outcomes: Counter[str] = Counter()

    @seed(number)
    @settings(max_examples=num_cases, phases=[Phase.generate, Phase.shrink], deadline=None,
              database=None, suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def cases(data: Any) -> None:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        folder = data.draw(st.sampled_from(list(wholes)))
        outcomes[one_case(data.draw, folder, wholes[folder])] += 1

    cases()
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(outcomes))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc tells")
def test_a_damaged_entry_is_refused_or_is_the_one_in_its_files(tmp_path: Path) -> None:
    children, outcomes = [], Counter[str]()
    for number in (secrets.randbits(32) for _ in range(2)):
        print(f"seed {number}")
        for name, make in tiny.MAKERS.items():
            save_entry(make(), tmp_path / str(number) / name)
        command = [sys.executable, __file__, str(tmp_path / str(number)), str(number), str(CASES)]
        children.append(subprocess.Popen(command, stdout=-1, stderr=-1, text=True))
    for child in children:
        told, complaints = child.communicate(timeout=900)
        assert child.returncode == 0, f"{complaints[-4000:]}"
        outcomes.update(json.loads(told.splitlines()[-1]))
    print(outcomes)
    # enough of both that the checks behind the sha256 and those after loading have met something
    assert outcomes["plain refused"] > 0.2 * CASES
    assert outcomes["hidden refused"] > 0.2 * CASES
    assert outcomes["hidden loaded"] > 0.03 * CASES


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
