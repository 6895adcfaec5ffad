"""Everything that the docs would say of a GPU, in ten minutes: one table.

    python benchmarks/gpu.py [--device cuda] [--batch 64] [--images 64]

The paper's U-Net of 52 M parameters on 64×64×6 latents, without self-conditioning, whose first
pass sees a varying number of samples: whole training steps with Adam, samples of 25 steps, and
encoding of 512×512 images, in float32, in bfloat16, and compiled. The peak is that of a matrix
product of the same type in this run. The last column is how far the result is off the CPU's in
float32: relative error of the network's output, and of latents drawn from the same noise; share of
codes that differ. `--tiny` tries all of it on small shapes.
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from training_step import least, matrix_product, operations

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.base import Chance
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import ContinuousDiffusion
from lit_mbldm.zoo import load_pretrained

STEPS = 25  # of a sample
CHECKED = 2  # samples that are compared with the CPU's
COLUMNS = "task | mode | images/s | TFLOP/s | of the peak | GiB | off the CPU"


@dataclass(frozen=True)
class Mode:
    """How a network runs."""

    device: str
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{', compiled' * self.compiled}"

    def load(self, model: ContinuousDiffusion) -> ContinuousDiffusion:
        """A copy of the model on the device, compiled where the mode says so."""
        copied = copy.deepcopy(model).to(self.device)
        if self.compiled:
            copied.denoiser.compile(backend="inductor" if self.device == "cuda" else "eager")
        return copied

    def autocast(self) -> torch.autocast:
        """The context in which the network runs."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)


def training_step(model: ContinuousDiffusion, mode: Mode, codes: Tensor) -> Callable[[], None]:
    """A training step on codes (B, S, h, w)."""
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 1e-4)
    batch = {"codes": codes.to(mode.device), "index": torch.arange(len(codes))}
    numbers = itertools.count()

    def step() -> None:
        with mode.autocast():
            loss = model.loss(batch, (next(numbers),), model.train_by_time)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@torch.no_grad()
def drawn(model: ContinuousDiffusion, mode: Mode, noise: Tensor) -> Tensor:
    """Latents (B, C, h, w) that DDIM draws from noise, on the CPU."""
    z, process = noise.to(mode.device), model.process
    streams = SampleStreams([(0, number) for number in range(len(z))], z.device)
    with mode.autocast():
        for t, s in itertools.pairwise(process.time_grid(STEPS)):
            prediction = process.predict(model.denoiser, z, t)
            z = process.ddim(z, prediction, t, s, Chance(streams))
    return z.float().cpu()


@torch.no_grad()
def predicted(model: ContinuousDiffusion, mode: Mode, noise: Tensor) -> Tensor:
    """The network's output (B, C, h, w) at t = T/2, on the CPU."""
    z = noise.to(mode.device)
    with mode.autocast():
        output = model.denoiser(z, z.new_full((len(z),), 0.5), torch.zeros_like(z), None)
    return output.float().cpu()


def relative_error(found: Tensor, exact: Tensor) -> float:
    """‖found - exact‖ / ‖exact‖."""
    return float((found - exact).norm() / exact.norm())


def training(
    model: ContinuousDiffusion, mode: Mode, codes: Tensor, few: Tensor, exact: Tensor, flop: float
) -> None:
    """Print the row of training on codes (B, S, h, w)."""
    loaded = mode.load(model).eval()
    off = relative_error(predicted(loaded, mode, few), exact)
    step = training_step(loaded.train(), mode, codes)
    row(f"training, batches of {len(codes)}", mode, len(codes), step, flop, off)


def sampling(
    model: ContinuousDiffusion, mode: Mode, noise: Tensor, exact: Tensor, flop: float
) -> None:
    """Print the row of sampling from noise (N, C, h, w)."""
    loaded = mode.load(model).eval()
    off = relative_error(drawn(loaded, mode, noise[:CHECKED]), exact)
    row(
        f"sampling, {STEPS} steps", mode, len(noise), partial(drawn, loaded, mode, noise), flop, off
    )


def counted(model: ContinuousDiffusion, mode: Mode, few: Tensor, codes: Tensor) -> tuple[int, int]:
    """Operations of a sample's forward pass and of a training step, without compilation."""
    loaded = mode.load(model).eval()
    with torch.no_grad():
        forward = operations(lambda: predicted(loaded, mode, few)) // len(few)
    return forward, operations(training_step(loaded.train(), mode, codes))


def row(
    task: str, mode: Mode, images: int, work: Callable[[], object], flop: float, off: float
) -> None:
    """Measure work on so many images and operations, and print its row."""
    cuda = mode.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = least(work, device=mode.device)
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if cuda else "–"
    rate = flop / seconds
    peak = matrix_product(8192 if cuda else 512, mode.device, mode.dtype)
    shares = [f"{rate / 1e12:.2f}", f"{rate / peak:.0%}"] if flop else ["–", "–"]
    cells = [task, str(mode), f"{images / seconds:.1f}", *shares, memory, f"{off:.1e}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # the peak's product has no TF32 either
    codec = load_pretrained("opq-32-8-8")
    unet = UNet(base_channels=8, channel_multipliers=(1, 2)) if options.tiny else UNet()
    side = 64 if options.tiny else 512
    model = ContinuousDiffusion(
        codec, unet, GaussianProcess(objective="v", self_conditioning=False), side
    )
    torch.nn.init.normal_(unet.head.weight, std=0.1)  # which starts at zero
    images = torch.randint(256, (options.images, 3, side, side), dtype=torch.uint8)
    codes = codec.encode(images)
    trained = codes[torch.arange(options.batch) % len(codes)]
    noise = torch.randn(options.images, *model.latent_shape)
    few, plain = noise[:CHECKED], Mode("cpu")
    exact = predicted(model.eval(), plain, few), drawn(model, plain, few)

    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}\n\n| {COLUMNS} |\n{'|---' * 7}|")
    half = Mode(options.device, torch.bfloat16)
    modes = [Mode(options.device), half, Mode(options.device, torch.bfloat16, compiled=True)]
    forward, step = counted(model, modes[0], few, trained)
    for mode in modes:
        training(model, mode, trained, few, exact[0], step)
    for mode in modes:
        sampling(model, mode, noise, exact[1], STEPS * forward * len(noise))
    there, given = copy.deepcopy(codec).to(options.device), images.to(options.device)
    off = float((there.encode(given).cpu() != codes).float().mean())
    row("encoding", modes[0], options.images, partial(there.encode, given), 0, off)


if __name__ == "__main__":
    main()
