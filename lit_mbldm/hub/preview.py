"""`samples.png`: what a codec, a refiner or a diffusion model does, at a glance."""

from importlib import resources
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lit_mbldm.codecs import DecoderCodec
from lit_mbldm.data.sources.images import resize_square, to_array
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.pictures import grid, table, to_pil
from lit_mbldm.training import Refiner
from lit_mbldm.training.diffusion import DiffusionModule

_SIDE = 192
_SAMPLES = 16


def make_picture(module: Any) -> Image.Image:
    """Show samples of a diffusion model, or what a codec or refiner makes of four photographs.

    The same module makes the same picture. Samples show their progress.

    Raises:
        InputError: options of sampling that do not fit the model.
    """
    if isinstance(module, DiffusionModule):
        return to_pil(grid(module.sample(_SAMPLES, progress=True)))
    codec = module.codec if isinstance(module, Refiner) else module
    photos = _photos(codec.patch_size)
    codes = codec.encode(photos)
    rows = {"photo": photos}
    if isinstance(codec, DecoderCodec):
        rows["plain"] = codec.decode(codes, plain=True)
    rows["decoded"] = codec.decode(codes)
    if isinstance(module, Refiner):
        rows["refined"] = module.refine(rows["decoded"])
    return table(torch.stack(list(rows.values())), rows=list(rows))


def _photos(multiple: int) -> Tensor:
    """The photographs that ship with the package: (4, 3, S, S) uint8 with S about 256."""
    side = max(_SIDE // multiple, 1) * multiple
    with resources.as_file(resources.files("lit_mbldm.data") / "photos") as folder:
        photos = [_square(photo, side) for photo in read_images(folder).values()]
    return torch.stack(photos)


def _square(photo: Image.Image, side: int) -> Tensor:
    short = min(photo.size)
    left, top = (photo.width - short) // 2, (photo.height - short) // 2
    resized = resize_square(photo, (left, top, left + short, top + short), side)
    return torch.from_numpy(to_array(resized).copy())
