"""What torch says of itself, asked in another process: a broken torch may crash or hang."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_LIMIT = 180  # seconds; a cold network disk takes more than one to import torch


@dataclass(frozen=True)
class TorchFindings:
    """What the process found out.

    Attributes:
        found: of each trial its `value`, or the `error` that it raised, or neither where it ended
            the process; later trials are not there then.
        ended: how the process ended, in words; empty where it ended well.
    """

    found: dict[str, dict[str, Any]]
    ended: str

    def value(self, trial: str) -> Any:
        """What it found, None where it failed."""
        return self.found.get(trial, {}).get("value")

    def tried(self, trial: str) -> bool:
        """Whether the process came as far."""
        return trial in self.found

    def error(self, trial: str) -> str:
        """Why it failed, empty where it did not or was not tried."""
        found = self.found.get(trial, {"value": None})
        return found.get("error", "") if "value" in found or "error" in found else self.ended


def find() -> TorchFindings:
    """Start the process and wait for what it finds."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lit_mbldm.doctor.torch_probe"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
        errors="replace",
    )
    try:
        told, complaints = process.communicate(timeout=_LIMIT)
        ended = _ending(process.returncode, complaints)
    except subprocess.TimeoutExpired as error:
        process.kill()  # and no waiting: a driver that hangs holds the process against that, too
        told = (error.output or b"").decode(errors="replace")
        ended = f"it did not end within {_LIMIT} seconds"
    return TorchFindings(_parse(told), ended)


def _ending(returncode: int, complaints: str) -> str:
    if returncode == 0:
        return ""
    if returncode < 0:
        return f"the process crashed ({signal.Signals(-returncode).name})"
    return (complaints.strip().splitlines() or [f"it ended with status {returncode}"])[-1]


def _parse(told: str) -> dict[str, dict[str, Any]]:
    found = {}
    for line in told.splitlines():
        if line.startswith('{"name": '):  # libraries print, too
            trial = json.loads(line)
            found[trial.pop("name")] = trial  # its second line tells how it went
    return found
