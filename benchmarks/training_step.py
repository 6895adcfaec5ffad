"""A U-Net's training step on a CPU in float32: beside peers of equal widths, and where time goes.

    python benchmarks/training_step.py [--threads 1 2] [--keep] [--shape 80,1-2-4-8,6,64,1]
    python benchmarks/training_step.py --profile [--channels-last] [--compile]

A shape is width, multipliers, latent channels, side, batch. Seconds are the least processor time of
several runs, with several threads the least time on the clock; memory is what a process holds at
most beyond its imports. GFLOP/s stand beside those of a matrix product in the same run. `--keep`
lets glibc keep freed memory, as the command does. Peers are compared where they are installed:
`pip install denoising-diffusion-pytorch==2.3.4 diffusers==0.42.1`. All see a self-conditioning.
"""

import argparse
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lit_mbldm.cli.main import keep_memory
from lit_mbldm.denoisers import UNet
from lit_mbldm.training.muon import Muon

SHAPES = ["48,1-2,12,8,32", "64,1-2,12,16,32", "64,1-2-2,12,16,32", "64,1-2-2,12,24,16"]
PEER_SHAPES = ["48,1-2,12,8,32", "64,1-2-2,12,16,16", "64,1-2-2,12,32,4", "80,1-2-4-8,6,64,1"]
KINDS = ("conv", "group_norm", "silu", "attention", "cat")
Denoise = Callable[[Tensor, Tensor], Tensor]  # of z_t and t/T


@dataclass(frozen=True)
class Shape:
    """A network and its batch, of a text as in the module's docstring."""

    text: str

    @property
    def width(self) -> int:
        """Of the first level."""
        return int(self.text.split(",")[0])

    @property
    def multipliers(self) -> list[int]:
        """Of the levels."""
        return [int(m) for m in self.text.split(",")[1].split("-")]

    @property
    def size(self) -> tuple[int, int, int, int]:
        """(B, C, side, side) of the latents."""
        channels, side, batch = map(int, self.text.split(",")[2:])
        return batch, channels, side, side


def ours(shape: Shape) -> tuple[nn.Module, Denoise]:
    """This package's network."""
    C = shape.size[1]
    network = UNet(C, C, shape.width, shape.multipliers)
    return network, lambda z, t: network(z, t, z)


def lucidrains(shape: Shape) -> tuple[nn.Module, Denoise]:
    """That of denoising-diffusion-pytorch."""
    from denoising_diffusion_pytorch import Unet

    how = {"channels": shape.size[1], "self_condition": True, "flash_attn": True}
    network = Unet(shape.width, dim_mults=tuple(shape.multipliers), **how)
    return network, lambda z, t: network(z, 1000 * t, z)


def diffusers(shape: Shape) -> tuple[nn.Module, Denoise]:
    """That of diffusers, with attention at the bottleneck as ours."""
    from diffusers import UNet2DModel

    C, widths = shape.size[1], tuple(shape.width * m for m in shape.multipliers)
    network = UNet2DModel(
        in_channels=2 * C,
        out_channels=C,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=math.gcd(32, shape.width),
        attention_head_dim=32,
    )
    return network, lambda z, t: network(torch.cat([z, z], dim=1), 1000 * t).sample


NETWORKS = {"lit_mbldm": ours, "denoising_diffusion_pytorch": lucidrains, "diffusers": diffusers}


def least(task: Callable[[], object], runs: int = 4, device: str = "cpu") -> float:
    """Least time of several runs after one: processor time of one thread, else on the clock."""
    single = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if single else time.perf_counter
    times = []
    for _ in range(runs + 1):
        start = clock()
        task()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


def matrix_product(side: int = 768, device: str = "cpu", dtype: torch.dtype | None = None) -> float:
    """Operations a second of the product of two square matrices."""
    x = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / least(lambda: x @ x, device=device)


def operations(task: Callable[[], object]) -> int:
    """Floating-point operations that a task counts."""
    with FlopCounterMode(display=False) as counter:
        task()
    return counter.get_total_flops()


def peer(name: str, text: str, threads: int) -> tuple[float, float, float, float]:
    """Millions of parameters, seconds of a forward pass and of a step, and MiB at most."""
    torch.set_num_threads(threads)
    network, denoise = NETWORKS[name](Shape(text))
    size = sum(p.numel() for p in network.parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # imports and weights
    z = torch.randn(Shape(text).size)
    t = torch.rand(len(z))
    with torch.no_grad():
        forward = least(lambda: denoise(z, t))
    both = least(lambda: denoise(z, t).square().mean().backward())
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return size / 1e6, forward, both, held / 2**10 + 4 * size / 2**20


def compare(shapes: list[str], threads: list[int]) -> None:
    """Print a row for each network that is installed, in a process of its own."""
    print("| shape | threads | network | parameters, M | forward, s | step, s | over ours | MiB |")
    print(f"{'|---' * 8}|")
    fork = multiprocessing.get_context("fork")  # has the imports; nothing was computed by now
    for text in shapes:
        for count in threads:
            own = 0.0
            for name in filter(find_spec, NETWORKS):
                with fork.Pool(1) as pool:
                    size, forward, both, memory = pool.apply(peer, (name, text, count))
                own = own or both
                cells = [text, str(count), name, f"{size:.1f}", f"{forward:.3f}", f"{both:.3f}"]
                print("| " + " | ".join([*cells, f"{both / own:.2f}", f"{memory:.0f}"]) + " |")


def profiled(text: str, layout: torch.memory_format, compiled: bool) -> None:
    """Print a row of the table and the shares of a step."""
    shape = Shape(text)
    network, denoise = ours(shape)
    z = torch.randn(shape.size).contiguous(memory_format=layout)
    t = torch.rand(len(z))

    def step() -> None:
        denoise(z, t).square().mean().backward()

    count = operations(step)
    if compiled:
        network.compile()
    with torch.no_grad():
        forward = least(partial(denoise, z, t))
    both = least(step)
    rate = count / both / 1e9
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
    cells = [text, f"{forward:.3f}", f"{both:.3f}", f"{rate:.0f}", f"{muon:.3f}", f"{adam:.3f}"]
    print("| " + " | ".join([*cells, f"{faults:,}", *(f"{s:.0%}" for s in shares)]) + " |")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true", help="by inductor: minutes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--shape", nargs="+")
    options = parser.parse_args()
    if options.keep:
        keep_memory()
    if not options.profile:
        compare(options.shape or PEER_SHAPES, options.threads)
        return
    torch.set_num_threads(1)
    print(f"matrix product: {matrix_product() / 1e9:.0f} GFLOP/s\n")
    columns = "forward, s | and backward, s | GFLOP/s | Muon, s | Adam, s | page faults"
    print(f"| shape | {columns} | {' | '.join(KINDS)} |\n{'|---' * (7 + len(KINDS))}|")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    for text in options.shape or SHAPES:
        profiled(text, layout, options.compile)


if __name__ == "__main__":
    main()
