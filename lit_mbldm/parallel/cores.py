"""How many cores there are to work on."""

import os


def cores() -> int:
    """Number of this machine's cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
