"""Loads damaged entries, one after another; run by test_fuzz.

    python fuzz_child.py FOLDER SEED NUM_CASES

FOLDER holds whole entries. Every case leaves a line in FOLDER/log, and ends in a folder that is
whole again.
"""

import faulthandler
import json
import random
import resource
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import tiny
from mutations import damage_bytes, damage_header, damage_values
from safetensors.numpy import load
from torch import nn

from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

SECONDS, MORE_BYTES = 20, 1 << 30


def limit_memory() -> None:
    """Allow a gigabyte beyond what the imports took."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def says(given: Any, built: Any) -> bool:
    """Whether a module's own tree is what a config asked for; what it left out is the default."""
    if isinstance(given, dict) and "class_path" in given:
        names = [str(tree["class_path"]).rpartition(".")[2] for tree in (given, built)]
        asked, found = given.get("init_args", {}), built["init_args"]
        return names[0] == names[1] and all(says(asked[key], found[key]) for key in asked)
    return bool(given == json.loads(json.dumps(built)))


def check_weights(module: nn.Module, path: Path) -> None:
    """Compare with the file as another reader reads it."""
    expected = load(path.read_bytes())
    found = {name: value.numpy() for name, value in module.state_dict().items()}
    assert found.keys() == expected.keys(), "other tensors"
    for name, value in found.items():
        other = expected[name]
        assert (value.dtype, value.shape) == (other.dtype, other.shape), f"another form of {name}"
        assert value.tobytes() == other.tobytes(), f"other numbers in {name}"


def check(module: Any, folder: Path) -> None:
    """Fail unless this is the module that lies in the folder."""
    config = tiny.read(folder)
    tree = describe(module)
    assert says(config["model"], tree), f"another tree: {tree}"
    assert getattr(module, "codec", module).fingerprint == config["fingerprint"], "fingerprint"
    check_weights(module, folder / tiny.WEIGHTS)
    assert not any(part.training for part in module.modules()), "in training"
    refiner = getattr(module, "refiner", None)
    assert (refiner is not None) == any(name.startswith("refiner/") for name in config["sha256"])
    if refiner is not None:
        check(refiner, folder / "refiner")


def damage(draw: random.Random, folder: Path) -> bool:
    """Damage one file; tells whether that was hidden from the checksums, as half of the times."""
    name = draw.choice(tiny.names(folder))
    path = folder / name
    data, hide = path.read_bytes(), draw.random() < 0.5
    is_config = path.name == tiny.CONFIG
    kind = draw.choice(["bytes", "structure", "structure"] if hide else ["bytes", "structure"])
    if kind == "bytes":
        path.write_bytes(damage_bytes(draw, data))
    elif is_config:
        path.write_text(json.dumps(damage_values(draw, json.loads(data))))
    else:
        path.write_bytes(damage_header(draw, data))
    if hide:
        try:
            tiny.rehash(folder)
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
            hide = False  # no config is left that could hold them
    return hide


def one_case(draw: random.Random, folder: Path, whole: dict[str, bytes]) -> str:
    """Damage, load, judge and mend; tells the outcome."""
    hidden = damage(draw, folder)
    changed = {name: data for name, data in tiny.contents(folder).items() if whole[name] != data}
    try:
        module = load_pretrained(folder)
    except InputError as error:
        text = str(error)
        assert str(folder) in text, f"an error that names no file: {text}"
        assert len(text) < 2000, "an error without end"
        outcome = "refused"
    else:
        check(module, folder)
        if not hidden:  # then nothing has changed that counts
            assert tiny.meaning(tiny.contents(folder)) == tiny.meaning(whole), "damage unnoticed"
        outcome = "loaded"
    for name in changed:
        (folder / name).write_bytes(whole[name])
    return f"{'hidden' if hidden else 'plain'} {outcome}"


def main(root: Path, seed: int, num_cases: int) -> None:
    """Go through all cases; the last line of the log tells which one failed."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    wholes = {folder: tiny.contents(folder) for folder in folders}
    for folder in folders:
        check(load_pretrained(folder), folder)
    limit_memory()
    outcomes: Counter[str] = Counter()
    with (root / "log").open("w") as log:
        for case in range(num_cases):
            draw = random.Random(f"{seed}/{case}")
            folder = draw.choice(folders)
            log.write(f"case {case} of seed {seed}: {folder.name}\n")
            log.flush()
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            outcomes[one_case(draw, folder, wholes[folder])] += 1
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
