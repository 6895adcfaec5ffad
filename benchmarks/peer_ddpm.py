"""A pixel-space DDPM of denoising-diffusion-pytorch, for rows of ablation.py.

    python -m venv peer && peer/bin/pip install denoising-diffusion-pytorch==2.3.4 pillow
    peer/bin/python benchmarks/peer_ddpm.py WORK --minutes 15

WORK is the folder of `ablation.py`, whose image shards it reads, and where it leaves its samples.
That scores them where `--minutes` and `--samples` are its own. It too trains on one thread and runs
in its own environment: it imports nothing of lit_mbldm.
"""

import argparse
import io
import json
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA
from PIL import Image


def read_images(folder: Path) -> torch.Tensor:
    """All images of a folder of tars, (N, 3, H, W) uint8."""
    images = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    data = tar.extractfile(member).read()
                    images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def train(
    diffusion: GaussianDiffusion, images: torch.Tensor, minutes: float, half: bool
) -> tuple[EMA, int]:
    """Train for so many minutes of processor time and return averaged weights and steps."""
    ema = EMA(diffusion, beta=0.995, update_every=1, update_after_step=0)
    optimizer = torch.optim.Adam(diffusion.parameters(), 5e-4, (0.9, 0.99))
    start, steps = time.process_time(), 0
    while time.process_time() - start < 60 * minutes:
        batch = images[torch.randint(len(images), (16,))].float() / 255
        if torch.rand(()) < 0.5:
            batch = batch.flip(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = diffusion(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        ema.update()
        steps += 1
        if steps % 50 == 0:
            print(f"step {steps}, loss {loss.item():.4f}", flush=True)
    return ema, steps


def main() -> None:
    """Train, and save samples at several step counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=15, help="processor time of training")
    parser.add_argument("--seed", type=int, default=0, help="of training and samples")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 16])
    parser.add_argument("--float32", action="store_true", help="where the ablation trains so")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    images = read_images(options.work / "images")
    network = Unet(dim=32, dim_mults=(1, 2, 4)).to(memory_format=torch.channels_last)
    diffusion = GaussianDiffusion(network, image_size=images.shape[2], timesteps=1000)
    ema, steps = train(diffusion, images, options.minutes, not options.float32)
    parameters = sum(p.numel() for p in network.parameters())
    for sampling_steps in options.steps:
        model = ema.ema_model
        model.sampling_timesteps, model.is_ddim_sampling = sampling_steps, True
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=not options.float32):
            made = torch.cat([model.sample(min(50, options.samples - i))
                              for i in range(0, options.samples, 50)])  # fmt: skip
        name = f"peer-{sampling_steps}-{options.seed}"
        pixels = (made.float().clamp(0, 1) * 255).round().byte()
        np.save(options.work / f"{name}.npy", pixels.numpy())
        facts = {
            "name": f"pixel DDPM of denoising-diffusion-pytorch, {parameters / 1e6:.1f} M, DDIM",
            "seed": options.seed,
            "minutes": options.minutes,
            "training_steps": steps,
            "steps": sampling_steps,
            "seconds": (time.process_time() - start) / options.samples,
        }
        (options.work / f"{name}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
