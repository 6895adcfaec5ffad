import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.errors import InputError

SIZE = 16


class MeanCodec(nn.Module):
    """A codec for tests: one code a patch, the mean of its red pixels."""

    def __init__(self, salt: str = "") -> None:
        super().__init__()
        self.fingerprint = hashlib.sha256(f"mean{salt}".encode()).hexdigest()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        if height % 8 or width % 8:
            raise InputError(f"Expected multiples of 8, got {height}×{width}.")
        return 1, height // 8, width // 8

    def encode(self, images: Tensor) -> Tensor:
        self.latent_shape(images.shape[2], images.shape[3])
        return torch.nn.functional.avg_pool2d(images[:, :1].float(), 8).round().to(torch.uint8)


@pytest.fixture
def codec() -> MeanCodec:
    return MeanCodec()


@pytest.fixture
def other_codec() -> MeanCodec:
    return MeanCodec("other")


def picture(index: int, size: int = SIZE) -> Image.Image:
    """Left half of brightness `index`, right half of 255 - `index`: tells itself and a flip."""
    pixels = np.full((size, size, 3), index, dtype=np.uint8)
    pixels[:, size // 2 :] = 255 - index
    return Image.fromarray(pixels)


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    def make(count: int, bad: int = 0, folder: str = "photos") -> Path:
        out = tmp_path / folder
        out.mkdir()
        for index in range(count):
            path = out / f"{index:03d}.png"
            if index < bad:
                path.write_bytes(b"no image")
            else:
                picture(index).save(path)
        return out

    return make


@pytest.fixture
def image_shards(make_photos: Callable[..., Path], tmp_path: Path) -> Path:
    """40 images in 4 shards."""
    out = tmp_path / "images"
    write_shards(make_photos(40), out, SIZE, shard_size=10, workers=1)
    return out


@pytest.fixture
def code_shards(image_shards: Path, tmp_path: Path, codec: MeanCodec) -> Path:
    """The codes of the 40 images."""
    out = tmp_path / "codes"
    encode_shards(image_shards, out, codec)
    return out
