"""What encoding costs: the codecs here beside the autoencoders of well-known latent diffusion.

    python benchmarks/autoencoders.py [LATENT ...]

One image of 512×512 pixels becomes a latent, in float32 on one thread. Diffusers builds the
autoencoders as they were published, with random weights, since neither parameters nor arithmetic
depend on them. Counted are the multiplications and additions of matrix products and convolutions, a
multiplication and an addition being two. Milliseconds are medians of processor time. A number of a
continuous latent counts as 16 bits. Needs the extra `bench`.
"""

import argparse
import math
import time
from functools import partial

import torch
from diffusers import AutoencoderKL, VQModel
from timing import medians
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.zoo import load_pretrained

SIDE = 512


def kl_f8(channels: int, quant_conv: bool) -> AutoencoderKL:
    """KL-f8 of latent diffusion, which Stable Diffusion 1 uses; FLUX.1's has 16 channels."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=quant_conv,
        use_post_quant_conv=quant_conv,
    )


def vq_f4() -> VQModel:
    """VQ-f4 of latent diffusion, 8192 codewords of 3 numbers."""
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(128, 256, 512),
        layers_per_block=2,
        latent_channels=3,
        num_vq_embeddings=8192,
        vq_embed_dim=3,
    )


LATENTS = {
    **{name: partial(load_pretrained, name) for name in ("opq-32-8-8", "jpq-48", "jpq-48+decoder")},
    "VQ-f4": vq_f4,
    "KL-f8": partial(kl_f8, 4, quant_conv=True),
    "FLUX.1": partial(kl_f8, 16, quant_conv=False),
}


def encode(model: nn.Module, images: Tensor) -> Tensor:
    """Images (1, 3, H, W) uint8 to codes, or to a latent's numbers."""
    if isinstance(model, ImageCodec):
        return model.encode(images)
    latent = model.encode(images / 127.5 - 1)
    if isinstance(model, VQModel):
        return model.quantize(latent.latents)[2][2]
    return latent.latent_dist.mode()


def bits(model: nn.Module, latent: Tensor) -> float:
    """Bits a pixel of a latent of one image."""
    if isinstance(model, ImageCodec):
        return model.bits_per_pixel
    each = math.log2(model.config.num_vq_embeddings) if isinstance(model, VQModel) else 16
    return each * latent.numel() / SIDE**2


def size(model: nn.Module) -> int:
    """Numbers that a model holds, codebooks and frozen networks included."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


@torch.no_grad()
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("latents", nargs="*", metavar="LATENT", help=f"of {', '.join(LATENTS)}")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    models = {name: LATENTS[name]().eval() for name in options.latents or LATENTS}
    tasks = {name: partial(encode, model, images) for name, model in models.items()}
    milliseconds = medians(tasks, options.repetitions, time.process_time)
    print("| latent | parameters | GFLOP to encode | ms on one core | bits a pixel |")
    print("|---|---|---|---|---|")
    for name, model in models.items():
        with FlopCounterMode(display=False) as counter:
            latent = tasks[name]()
        operations = counter.get_total_flops() / 1e9
        print(f"| {name} | {size(model) / 1e6:.2f} M | {operations:.2f}", end="")
        print(f" | {1e3 * milliseconds[name]:,.0f} | {bits(model, latent):.2f} |")


if __name__ == "__main__":
    main()
