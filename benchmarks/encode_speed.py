"""How fast images become codes: this package, faiss and plain torch with the same threads.

python benchmarks/encode_speed.py [--codec jpq-48] [--image PATH]
"""

import argparse
import io
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image
from timing import medians
from torch import Tensor

from lit_mbldm.codecs import ImageCodec, JointCodec, PatchCodec
from lit_mbldm.codecs.fitting.quantizers import to_faiss
from lit_mbldm.codecs.vector_quantized import Codebook, ProductCodebook
from lit_mbldm.images import fit_square, load_rgb, to_array
from lit_mbldm.zoo import load_pretrained

SIDE = 512
OURS, FAISS = "codec.encode (image to codes)", "faiss sa_encode (patches to codes)"
PAPER = "opq-32-8-8"


def plain_encode(channel: Codebook, x: Tensor) -> Tensor:
    """Score all codewords of each sub-codebook with addmm, then argmin: (N, D) to (N, M)."""
    assert isinstance(channel, ProductCodebook)
    if channel.rotation is not None:
        x = x @ channel.rotation.t()
    codes = []
    for part, codewords in zip(
        x.split(channel.codewords.shape[2], dim=1), channel.codewords, strict=True
    ):
        half_norms = codewords.square().sum(1) / 2
        codes.append(torch.addmm(half_norms, part, codewords.t(), alpha=-1).argmin(1))
    return torch.stack(codes, dim=1)


def quantized(codec: ImageCodec, image: Tensor) -> list[tuple[Codebook, Tensor]]:
    """The codebooks of a codec, each with the vectors (N, D) of an image that it quantises."""
    vectors = codec.to_vectors(image)
    if isinstance(codec, JointCodec):
        return [(codec.codebook, vectors.flatten(0, 2))]
    assert isinstance(codec, PatchCodec)
    return list(zip(codec.channels, vectors.flatten(1, 3), strict=True))


def cpu_tasks(codec: ImageCodec, picture: Image.Image) -> dict[str, Callable[[], object]]:
    """Build what is timed, by name."""
    image = torch.from_numpy(to_array(picture).copy())[None]  # (1, 3, H, W)
    parts = quantized(codec, image)
    arrays = [np.ascontiguousarray(x.numpy()) for _, x in parts]
    indexes = to_faiss(codec)
    paper = load_pretrained(PAPER)
    paper_arrays = [np.ascontiguousarray(x.numpy()) for _, x in quantized(paper, image)]
    paper_indexes = to_faiss(paper)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=90)
    return {
        OURS: lambda: codec.encode(image),
        FAISS: lambda: [i.sa_encode(x) for i, x in zip(indexes, arrays, strict=True)],
        "torch addmm + argmin (patches to codes)": lambda: [
            plain_encode(codebook, x) for codebook, x in parts
        ],
        PAPER: lambda: paper.encode(image),
        f"faiss sa_encode of {PAPER}": lambda: [
            i.sa_encode(x) for i, x in zip(paper_indexes, paper_arrays, strict=True)
        ],
        "Pillow JPEG decode": lambda: Image.open(io.BytesIO(jpeg.getvalue())).load(),
    }


def gpu_rate(codec: ImageCodec, image: Tensor, batch: int = 64) -> float:
    """Images a second on the GPU, images and codes staying there."""
    codec = codec.cuda()
    images = image.cuda().expand(batch, -1, -1, -1).contiguous()

    def task() -> None:
        codec.encode(images)
        torch.cuda.synchronize()

    seconds = medians({"gpu": task}, 20, warm_up=3)["gpu"]
    codec.cpu()
    return batch / seconds


def load_picture(path: Path | None) -> Image.Image:
    """Read the image, by default a packaged photograph, as 512×512 RGB."""
    packaged = resources.files("lit_mbldm.data") / "photos" / "astronaut.jpg"
    return fit_square(load_rgb((path or packaged).read_bytes()), SIDE)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="default: a packaged photograph")
    parser.add_argument("--codec", default=PAPER, help="codec name or folder")
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    codec, picture = load_pretrained(options.codec), load_picture(options.image)

    tasks = cpu_tasks(codec, picture)
    print(f"{codec.quantizer}, {SIDE}×{SIDE} image, median of {options.repetitions}, CPU\n")
    print("| | threads | ms | faiss's time over this |")
    print("|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        times = medians(tasks, options.repetitions, warm_up=3)
        for name, value in times.items():
            print(f"| {name} | {threads} | {1e3 * value:.2f} | {times[FAISS] / value:.2f} |")
    if torch.cuda.is_available():
        image = torch.from_numpy(to_array(picture).copy())[None]
        print(f"{torch.cuda.get_device_name()}: {gpu_rate(codec, image):.0f} images a second")


if __name__ == "__main__":
    main()
