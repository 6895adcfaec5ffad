"""`samples.png`: what a codec, a refiner or a diffusion model does, at a glance."""

from importlib import resources

import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec, ImageCodec
from lit_mbldm.data.sources.images import resize_square, to_array
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.errors import InputError
from lit_mbldm.pictures import grid, table, to_pil
from lit_mbldm.training import Refiner
from lit_mbldm.training.diffusion import DiffusionModule

_SIDE = 192
_SAMPLES = 16


def draw_picture(module: nn.Module) -> Image.Image:
    """Draw samples of a diffusion model, or what a codec or refiner makes of four photographs.

    The same module makes the same picture. Samples show their progress.

    Raises:
        InputError: another kind of module, or options of sampling that do not fit it.
    """
    match module:
        case DiffusionModule():
            return to_pil(grid(module.sample(_SAMPLES, progress=True)))
        case Refiner():
            photos = _photos(module.codec.patch_size)
            decoded = module.codec.decode(module.codec.encode(photos))
            return _rows({"photo": photos, "decoded": decoded, "refined": module.refine(decoded)})
        case DecoderCodec():
            photos = _photos(module.patch_size)
            codes = module.encode(photos)
            plain, decoded = module.decode(codes, plain=True), module.decode(codes)
            return _rows({"photo": photos, "plain": plain, "decoded": decoded})
        case ImageCodec():
            photos = _photos(module.patch_size)
            return _rows({"photo": photos, "decoded": module.decode(module.encode(photos))})
    raise InputError(
        f"Expected a codec, a diffusion model or a refiner, got a {type(module).__name__}."
    )


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


def _rows(rows: dict[str, Tensor]) -> Image.Image:
    return table(torch.stack(list(rows.values())), rows=list(rows))
