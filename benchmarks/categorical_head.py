"""What the categorical loss costs beside the continuous one: time and peak memory of a step.

    python benchmarks/categorical_head.py [--batch-size 2] [--steps 3] [--device cpu]

One training step of the paper's 52 M U-Net on 64×64×6 latents (512×512 images), Adam included:
continuous, categorical (the paper's two terms), by cross-entropy (as
`configs/small96_categorical.yaml`) and by all of these terms. Times are medians of interleaved
steps, on a CPU processor time of one thread; memory is the peak of a process of its own above what
it holds before the model is built. Ratios are to the continuous step.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from timing import medians

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.zoo import load_pretrained

NAMES = ("continuous", "categorical", "cross-entropy", "all terms")


def make_step(name: str, batch_size: int, device: str) -> Callable[[], None]:
    """Build a model and return its training step."""
    codec = load_pretrained("opq-32-8-8").to(device)
    process: GaussianProcess | CategoricalProcess
    if name == "continuous":
        process = GaussianProcess()
    elif name == "categorical":
        process = CategoricalProcess()
    else:
        paper = 0.0 if name == "cross-entropy" else 1.0
        process = CategoricalProcess(
            latent_weight=paper,
            image_weight=paper,
            cross_entropy_weight=1.0,
            likelihood=True,
            gaussian_head=True,
        )
    process.use(codec)
    process.to(device)
    unet = UNet(6, process.output_channels(6)).to(device)
    optimizer = torch.optim.Adam(unet.parameters(), 1e-4)
    z0 = torch.randint(0, 256, (batch_size, 6, 64, 64), device=device) / 127.5 - 1  # of indices
    t = torch.linspace(1, 1000, batch_size, device=device).long()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            streams = SampleStreams([(0, i) for i in range(batch_size)], device)
            loss = process.loss(unet, z0, t, streams).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure_memory(name: str, batch_size: int, device: str) -> float:
    """Peak bytes of two steps, above what the process held before."""
    if device == "cuda":
        step = make_step(name, batch_size, device)
        step(), step()
        return torch.cuda.max_memory_allocated()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = make_step(name, batch_size, device)
    step(), step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of, options.batch_size, options.device)))
        return
    memory = {}
    for name in NAMES:
        again = [sys.executable, __file__, "--memory-of", name, "--device", options.device,
                 "--batch-size", str(options.batch_size)]  # fmt: skip
        memory[name] = json.loads(subprocess.run(again, check=True, capture_output=True).stdout)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    steps = {name: make_step(name, options.batch_size, options.device) for name in NAMES}
    times = medians(steps, options.steps, clock)
    first = times["continuous"]
    print(f"batch {options.batch_size}, {options.device}, {torch.get_num_threads()} threads,"
          f" bfloat16, medians of {options.steps} steps\n\n"
          "| step | s | time ratio | peak MiB | memory ratio |\n|---|---|---|---|---|")  # fmt: skip
    for name in NAMES:
        seconds, peak = times[name], memory[name]
        print(f"| {name} | {seconds:.3f} | {seconds / first:.2f} | {peak / 2**20:.0f} |"
              f" {peak / memory['continuous']:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
