"""Where the time of a U-Net's training step goes, on one CPU thread in float32.

    python benchmarks/training_step.py [--keep] [--channels-last] [--shape 64,1-2-2,12,16,32]

A shape is width, multipliers, latent channels, side, batch. Seconds are the least processor time of
several runs; GFLOP/s stand beside those of a matrix product in the same run. `--keep` lets glibc
keep freed memory, as the command does.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lit_mbldm.cli.main import keep_memory
from lit_mbldm.denoisers import UNet
from lit_mbldm.training.muon import Muon

SHAPES = ["48,1-2,12,8,32", "64,1-2,12,16,32", "64,1-2-2,12,16,32", "64,1-2-2,12,24,16"]
KINDS = ("conv", "group_norm", "silu", "attention", "cat")


def least(task: Callable[[], object], runs: int = 4) -> float:
    """Least processor time of several runs, after one that does not count."""
    task()
    times = []
    for _ in range(runs):
        start = time.process_time()
        task()
        times.append(time.process_time() - start)
    return min(times)


def measure(shape: str, layout: torch.memory_format) -> None:
    """Print a row of the table and the shares of a step."""
    width, multipliers, channels, side, batch = shape.split(",")
    C, B = int(channels), int(batch)
    network = UNet(C, C, int(width), [int(m) for m in multipliers.split("-")])
    z = torch.randn(B, C, int(side), int(side)).contiguous(memory_format=layout)
    t = torch.rand(B)

    def step() -> None:
        network(z, t, z).square().mean().backward()

    with torch.no_grad():
        forward = least(lambda: network(z, t, z))
    both = least(step)
    with FlopCounterMode(display=False) as counter:
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    muon, adam = (least(o.step) for o in (Muon(network), torch.optim.Adam(network.parameters())))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = [
        sum(event.self_cpu_time_total for event in events if kind in event.key) / total
        for kind in KINDS
    ]
    rate = counter.get_total_flops() / both / 1e9
    cells = [shape, f"{forward:.3f}", f"{both:.3f}", f"{rate:.0f}", f"{muon:.3f}", f"{adam:.3f}"]
    print("| " + " | ".join([*cells, f"{faults:,}", *(f"{s:.0%}" for s in shares)]) + " |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--shape", nargs="+", default=SHAPES)
    options = parser.parse_args()
    if options.keep:
        keep_memory()
    torch.set_num_threads(1)
    x = torch.randn(768, 768)
    print(f"matrix product: {2 * 768**3 / least(lambda: x @ x) / 1e9:.0f} GFLOP/s\n")
    columns = "forward, s | and backward, s | GFLOP/s | Muon, s | Adam, s | page faults"
    print(f"| shape | {columns} | {' | '.join(KINDS)} |\n{'|---' * (7 + len(KINDS))}|")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    for shape in options.shape:
        measure(shape, layout)


if __name__ == "__main__":
    main()
