"""Timing tasks beside each other, for the benchmarks of this folder."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def medians(
    tasks: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 1,
) -> dict[str, float]:
    """Median seconds of each task, run in turns so that all meet the same disturbances.

    Args:
        tasks: by name.
        repetitions: runs of each that count.
        clock: `time.process_time` counts processor time, which other programs hardly disturb.
        warm_up: runs of each before, which do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(warm_up + repetitions):
        for name, task in tasks.items():
            start = clock()
            kept = task()
            if repetition >= warm_up:
                times[name].append(clock() - start)
            del kept  # after the clock has stopped
    return {name: median(values) for name, values in times.items()}
