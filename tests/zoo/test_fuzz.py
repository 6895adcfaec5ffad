import json
import secrets
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny

from lit_mbldm.entries.entry import save_entry

CHILD = Path(__file__).with_name("fuzz_child.py")


def fuzz(folder: Path, seed: int, num_cases: int, seconds: float) -> dict[str, int]:
    """Load this many damaged entries in a child process; tells the outcomes."""
    for name, make in tiny.MAKERS.items():
        save_entry(make(), folder / name)
    command = [sys.executable, str(CHILD), str(folder), str(seed), str(num_cases)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    log = folder / "log"
    last = log.read_text().splitlines()[-1] if log.exists() else "no case"
    assert child.returncode == 0, f"{last}\n{child.stderr[-4000:]}"
    outcomes: dict[str, int] = json.loads(child.stdout)
    print(outcomes)
    return outcomes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc tells")
def test_a_damaged_entry_is_refused_or_is_the_one_in_its_files(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:  # of a child process each
        halves = pool.map(lambda seed: fuzz(tmp_path / str(seed), seed, 1000, 300), (0, 10))
        outcomes = sum(map(Counter, halves), Counter())
    assert sum(outcomes.values()) == 2000
    # enough of both that the checks behind the checksums and those after loading have met something
    assert outcomes["plain refused"] > 500
    assert outcomes["hidden refused"] > 300
    assert outcomes["hidden loaded"] > 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc tells")
def test_three_thousand_more_from_a_fresh_seed(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    fuzz(tmp_path, seed, num_cases=3000, seconds=1800)
