"""How near few steps of each sampler come to many, from the same noise.

    python benchmarks/sampler_grid.py [MODEL] [--images 8] [--steps 4 8 16 25]

Prints the mean PSNR of images (dB) to those of 200 steps of DDIM, whose times are even.
"""

import argparse

import torch

from lit_mbldm import load_pretrained


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="eurosat-64")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 25])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_pretrained(options.model)

    def images(sampler: str, steps: int) -> torch.Tensor:
        return model.sample(options.images, sampler=sampler, steps=steps, seed=0).float()

    reference = images("ddim", 200)
    samplers = ("ddim", "dpm++")
    print(f"| steps | {' | '.join(samplers)} |\n|---|---|---|")
    for steps in options.steps:
        found = [
            10 * torch.log10(255**2 / (images(one, steps) - reference).square().flatten(1).mean(1))
            for one in samplers
        ]
        print(f"| {steps} | {' | '.join(f'{psnr.mean():.1f}' for psnr in found)} |")


if __name__ == "__main__":
    main()
