"""The arithmetic of a training step of the paper's models, and how long a million take.

    python benchmarks/training_cost.py [--device cpu] [--batch-size 2]

Counts floating-point operations (a multiplication and an addition are two) of the U-Net on 64×64×6
latents, with self-conditioning's second forward pass for half of the samples, and measures a step:
on a CPU processor time of one thread.
"""

import argparse
import itertools
import time

import torch
from timing import medians
from torch.utils.flop_counter import FlopCounterMode

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion
from lit_mbldm.training.diffusion import DiffusionModule

STEPS, BATCH = 1_000_000, 64
SUSTAINED = (50, 100, 400)  # TFLOP/s over all GPUs


def operations(unet: UNet) -> float:
    """Operations of an image's training step."""
    z = torch.zeros(1, 6, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(z, torch.ones(1), z)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        unet(z, torch.ones(1), z).sum().backward()
    return counter.get_total_flops() + forward / 2


def seconds(model: DiffusionModule, batch_size: int, device: str) -> float:
    """Median seconds of an image's training step."""
    model.to(device)
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 1e-4)
    codes = torch.randint(0, 256, (batch_size, 6, 64, 64), dtype=torch.uint8, device=device)
    batch = {"codes": codes, "index": torch.arange(batch_size)}
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps = itertools.count()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model.loss(batch, (next(steps),), model.train_by_time)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return medians({"step": step}, 5, clock)["step"] / batch_size


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = " | ".join(f"{STEPS:,} steps at {rate} TFLOP/s" for rate in SUSTAINED)
    print(f"| model | GFLOP an image | s an image, {options.device} | {columns} |")
    print("|---" * (3 + len(SUSTAINED)) + "|")
    models: dict[str, DiffusionModule] = {
        "continuous": ContinuousDiffusion("opq-32-8-8", UNet(6, 6), GaussianProcess(), 512),
        "categorical": CategoricalDiffusion("opq-32-8-8", UNet(6, 1536), CategoricalProcess(), 512),
    }
    for name, model in models.items():
        assert isinstance(model.denoiser, UNet)
        each = operations(model.denoiser)
        spent = seconds(model, options.batch_size, options.device)
        total = each * STEPS * BATCH
        hours = " | ".join(f"{total / (rate * 1e12) / 3600:.0f} h" for rate in SUSTAINED)
        print(f"| {name} | {each / 1e9:.1f} | {spent:.2f} | {hours} |")


if __name__ == "__main__":
    main()
