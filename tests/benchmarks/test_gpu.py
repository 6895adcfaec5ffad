"""The script for a GPU runs on the CPU, and agrees with it there."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_the_table_has_a_row_for_each_task_and_mode() -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--batch", "2"]
    done = subprocess.run(
        [*command, "--images", "2"], check=True, capture_output=True, text=True
    ).stdout
    rows = [line.strip("| ").split(" | ") for line in done.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 + 3 + 1
    assert all(len(row) == len(rows[0]) for row in rows)
    assert all(float(row[2]) > 0 for row in rows[1:])
    exact = [row for row in rows if row[1] == "float32"]
    assert all(float(row[-1]) < 1e-5 for row in exact)
    assert all(float(row[-1]) < 0.1 for row in rows[1:])
