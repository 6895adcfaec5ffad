import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.pictures import to_tensor


def synthetic_image(seed: int, height: int = 96, width: int = 128) -> Tensor:
    """Coloured clouds with edges and a little noise: (3, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cells, strength in ((3, 90.0), (12, 40.0), (40, 15.0)):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        noise = 0.6 * noise.mean(1, keepdim=True) + 0.4 * noise
        image += strength * F.interpolate(noise, (height, width), mode="bicubic")
    image[..., width // 2 :] += 40
    image += 3 * torch.randn(image.shape, generator=generator)
    return (image[0] + 128).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems lose more time waiting for a second thread than they gain."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


@pytest.fixture(scope="package")
def images() -> list[Tensor]:
    return [synthetic_image(seed) for seed in range(4)]


@pytest.fixture(scope="package")
def unseen() -> Tensor:
    return torch.stack([synthetic_image(seed) for seed in (10, 11)])


@pytest.fixture(scope="package")
def opq(one_thread: None, images: list[Tensor]) -> ImageCodec:
    return fit_codec(images, "OPQ-32-8-8", max_patches=2500)


@pytest.fixture(scope="package")
def jpq(one_thread: None, images: list[Tensor]) -> ImageCodec:
    return fit_codec(images, "JPQ-48", max_patches=2500)


@pytest.fixture(scope="package")
def kodak() -> list[Tensor]:
    """24 photographs, (1, 3, H, W) each."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("LIT_MBLDM_DATA", default)) / "kodak"
    if not folder.is_dir():
        pytest.skip(f"needs test images in {folder} (or LIT_MBLDM_DATA)")
    return [to_tensor(Image.open(path))[None] for path in sorted(folder.glob("*.png"))]
