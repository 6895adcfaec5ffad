import json
import secrets
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny

from lit_mbldm.entries.entry import save_entry

CHILD = Path(__file__).with_name("fuzz_child.py")
CASES = 750


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc tells")
def test_a_damaged_entry_is_refused_or_is_the_one_in_its_files(tmp_path: Path) -> None:
    children, outcomes = [], Counter[str]()
    for seed in (secrets.randbits(32) for _ in range(2)):
        print(f"seed {seed}")
        for name, make in tiny.MAKERS.items():
            save_entry(make(), tmp_path / str(seed) / name)
        command = [sys.executable, str(CHILD), str(tmp_path / str(seed)), str(seed), str(CASES)]
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
