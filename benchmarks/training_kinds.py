"""A training step of each kind of model on a CPU: time and memory beside that of coefficients.

    python benchmarks/training_kinds.py [--threads 1 2] [--rows base pixels]

Rows are those of `ablation.py`, with labels and Muon, on 64×64 images of noise in batches of 16,
with the shipped codec of 4×4 patches. A step is loss, gradients and optimiser, without the loading
and encoding of images. Time is processor time of all threads together, the mean of `--steps`, since
stages take turns; memory is the most that a process holds beyond what it began with,
weights included. Each row is measured in a process of its own.
"""

import argparse
import multiprocessing
import resource
import time

import torch
from ablation import SIZE, build
from ablation_rows import ROWS

from lit_mbldm.cli.main import keep_memory
from lit_mbldm.codecs import PixelCodec
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained

BATCH, CLASSES = 16, 10
KINDS = {
    "base": "coefficients",
    "self-conditioning": "with self-conditioning",
    "base in two stages: 4, then 12 coefficients": "in two stages, of 4 and 12",
    "codes of the base's codec": "codes as categories",
    "bits of the base's codec": "bits",
    "bits of a code together": "bits, a code together",
    "pixels": "pixels",
    "pixels in two stages: 32×32, then 64×64": "in two stages, of 32×32 and 64×64",
}


def measure(row: str, threads: int, steps: int) -> tuple[float, float, float]:
    """Millions of parameters, seconds an image and MiB at most, of a row of the ablation."""
    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    recipe = ROWS[row]
    codec = PixelCodec() if recipe.codec == "pixels" else load_pretrained("jpq-32-4x4")
    model = build(recipe, codec, [str(number) for number in range(CLASSES)])
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    numbers = torch.arange(BATCH)
    batch = {"images": images, "codes": codec.encode(images)}
    batch |= {"index": numbers, "label": numbers % CLASSES}
    optimizer = model.configure_optimizers()["optimizer"]

    def step(number: int) -> None:
        optimizer.zero_grad()
        model.loss(batch, (0,), LossByTime(), number).backward()
        optimizer.step()

    for number in range(2):
        step(number)
    start = time.process_time()
    for number in range(2, 2 + steps):
        step(number)
    seconds = (time.process_time() - start) / steps / BATCH
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return sum(p.numel() for p in model.denoiser.parameters()) / 1e6, seconds, held / 2**10


def main() -> None:
    """Print a row for each kind and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", nargs="+", choices=KINDS, default=list(KINDS), metavar="ROW")
    options = parser.parse_args()
    keep_memory()
    print("| model of | threads | parameters, M | s an image | over the first | MiB |")
    print(f"{'|---' * 6}|")
    fork = multiprocessing.get_context("fork")  # has the imports; nothing was computed by now
    for threads in options.threads:
        first = 0.0
        for row in options.rows:
            with fork.Pool(1) as pool:
                found = pool.apply(measure, (row, threads, options.steps))
            size, seconds, memory = found
            first = first or seconds
            cells = [KINDS[row], str(threads), f"{size:.1f}", f"{seconds:.4f}"]
            print("| " + " | ".join([*cells, f"{seconds / first:.2f}", f"{memory:.0f}"]) + " |")


if __name__ == "__main__":
    main()
