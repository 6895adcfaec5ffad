"""How many cores there are to work on."""

import os


def cores() -> int:
    """Of this machine, without those that are closed to this process where that is told."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
