"""Whole entries: weights, config, card and picture, out of anything that loads."""

import io
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec, ImplicitCodec
from lit_mbldm.codecs.network_codec import NetworkCodec
from lit_mbldm.codecs.sizes import resized
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.about import about_module
from lit_mbldm.entries.entry import (
    check_new_entry,
    entry_files,
    use_index,
    use_refiner,
    write_files,
)
from lit_mbldm.entries.entry_config import CARD, PICTURE
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.entries.tree import network_tensors
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import address_card, write_card
from lit_mbldm.hub.onnx_files import onnx_files
from lit_mbldm.images import fit_square
from lit_mbldm.pictures import table, to_tensor
from lit_mbldm.training import SampleOptions
from lit_mbldm.training.callbacks.nearest import training_codes
from lit_mbldm.training.callbacks.pictures import class_columns
from lit_mbldm.training.callbacks.samples import diffusion_model
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import RefinerModule, load_refiner
from lit_mbldm.training.upscaler import Upscaler

_SIDE = 192  # of the photographs in a picture, about
_LARGEST = 300  # photographs that ship are no smaller
_ROW = 6  # samples; of a class, if they fit
_FONT_SIZE = 14  # in a model's picture


def export(
    model: str | Path,
    out: Path,
    facts: dict[str, Any],
    refiner: str | Path | None = None,
    name: str | None = None,
    half: bool = False,
    index: str | None = None,
    onnx: bool = False,
) -> None:
    """Write a whole entry into the folder `out`, of whatever `load_pretrained` takes.

    `facts` are attributes of `About`, stated over what is known of the model. Its samples pass
    through `refiner`, and its card loads it by `name`; pushing fills that in otherwise. `half`
    rounds networks to float16, in which the entry then keeps them; codebooks stay. `index` are
    shards of training images, whose codes the entry keeps, by which copies are found. `onnx` adds
    the `onnx_files`, which are not pushed.
    """
    check_new_entry(out)
    module = load_pretrained(model)
    # a model's codec stays as it is, for others know its images by their fingerprint
    rounded = (
        network_tensors(module) if isinstance(module, ImageCodec) else module.named_parameters()
    )
    for _, weights in rounded if half else ():
        weights.data = weights.data.half().float()
    if refiner is not None:
        use_refiner(module, load_refiner(refiner))
    if index is not None:
        use_index(module, training_codes(diffusion_model(module), index))
    about = replace(about_module(module), **facts)
    if isinstance(module, DiffusionModule):
        sampling = SampleOptions.read(about.sampling).over(module.sampling)
        about = replace(about, sampling=sampling.given())
    elif about.sampling:
        raise InputError(
            f"{', '.join(about.sampling)}: options of sampling suit a diffusion model, got a"
            f" {type(module).__name__}. Leave them out."
        )
    vars(module)["about"] = about
    added = onnx_files(module) if onnx else {}
    write_files(out, whole_entry(module, name=name) | added)


def whole_entry(
    module: nn.Module, folder: Path | None = None, name: str | None = None
) -> dict[str, bytes]:
    """The contents of all files of a module's entry, by path; the same module makes the same.

    A card and a picture in `folder` stay as they are, but the card says the `name` it is pushed to.
    """
    about, stream = about_module(module), io.BytesIO()
    kept = [folder / name for name in (CARD, PICTURE) if folder and (folder / name).exists()]
    old = {path.name: path.read_bytes() for path in kept}
    try:
        card = old[CARD].decode() if CARD in old else write_card(module, about)
    except UnicodeDecodeError as error:
        raise InputError(f"{folder}/{CARD} must be a text in UTF-8: {error}.") from error
    card = address_card(card, name) if name else card
    if PICTURE not in old:
        _make_picture(module).save(stream, "PNG")
    picture = old.get(PICTURE, stream.getvalue())
    return entry_files(module, about, {CARD: card.encode(), PICTURE: picture})


def _make_picture(module: Any) -> Image.Image:
    """What a codec or refiner makes of four photographs; above it samples of a diffusion model."""
    if isinstance(module, Upscaler):
        return _upscaled(module)
    if not isinstance(module, DiffusionModule):
        return _photographs(module)
    samples = _samples(module)
    side = min(_ROW * module.image_size // 4, _LARGEST)
    photographs = _photographs(module.codec, side, _FONT_SIZE)
    width, gap = max(samples.width, photographs.width), 8
    sheet = Image.new("RGB", (width, samples.height + gap + photographs.height), "white")
    sheet.paste(samples, (width - samples.width, 0))
    sheet.paste(photographs, (width - photographs.width, samples.height + gap))
    return sheet


def _upscaled(model: Upscaler) -> Image.Image:
    """Photographs, made smaller and interpolated, and drawn by the model."""
    size, photos = (model.image_size, model.image_size), _photos(model.image_size)
    small = resized(photos, (size[0] // 2, size[1] // 2))
    drawn = model.upscale(small, size, progress=True)
    return _rows({"photo": photos, "bicubic": resized(small, size), "drawn": drawn})


def _samples(model: DiffusionModule) -> Image.Image:
    """A row of samples a class, if it has some and they fit on a sheet; else a sample of many."""
    classes = class_columns(model, model.sampling)
    if classes is None:
        many, count = _ROW * _ROW, len(model.class_names or ())
        spread: list[int | str] = [number * count // many for number in range(many)]
        label = spread if count > many else None
        drawn = model.sample(many, label=label, progress=True).unflatten(0, (-1, _ROW))
        return table(drawn, ["samples", *[""] * (_ROW - 1)], font_size=_FONT_SIZE)
    drawn = model.sample(_ROW * classes, progress=True)  # the classes in turn
    rows = drawn.unflatten(0, (-1, classes)).transpose(0, 1)
    return table(rows, model.class_names or (), font_size=_FONT_SIZE)


def _photographs(module: Any, side: int = _SIDE, font_size: int | None = None) -> Image.Image:
    """A row of photographs, and rows of what a codec, with decoder and refiner, makes of them."""
    codec = module.codec if isinstance(module, RefinerModule) else module
    scale = 2 if isinstance(codec, ImplicitCodec) else 1
    step = scale * codec.patch_size
    side = max(side // step, 1) * step
    photos = _photos(side)
    codes = codec.encode(resized(photos, (side // scale, side // scale)))
    rows = {"photo": photos}
    if isinstance(codec, NetworkCodec):
        name = "interpolated" if isinstance(codec, ImplicitCodec) else "plain"
        rows[name] = codec.decode(codes, (side, side), plain=True)
    rows["decoded"] = codec.decode(codes, (side, side))
    if isinstance(module, RefinerModule):
        rows["refined"] = module.refine(rows["decoded"])
    return _rows(rows, font_size)


def _rows(rows: dict[str, Tensor], font_size: int | None = None) -> Image.Image:
    return table(torch.stack(list(rows.values())), list(rows), font_size=font_size)


def _photos(side: int) -> Tensor:
    """The photographs in the package as squares, (4, 3, side, side) uint8."""
    with resources.as_file(resources.files("lit_mbldm.data") / "photos") as folder:
        squares = [to_tensor(fit_square(photo, side)) for photo in read_images(folder).values()]
    return torch.stack(squares)
