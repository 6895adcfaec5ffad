"""Whole entries: weights, config, card and picture, out of anything that loads."""

import io
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec
from lit_mbldm.data.sources.images import fit_square, to_array
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.entries.about import about_module
from lit_mbldm.entries.entry import entry_files, refuse_existing_entry, use_refiner, write_files
from lit_mbldm.entries.entry_config import CARD, PICTURE
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import address_card, write_card
from lit_mbldm.pictures import grid, table, to_pil
from lit_mbldm.storage.atomic import check_writable
from lit_mbldm.training import Refiner, SampleOptions
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import load_refiner

_SIDE = 192  # of the photographs in a picture, about
_SAMPLES = 16


def export(
    model: str | Path,
    out: Path,
    facts: dict[str, Any],
    refiner: str | Path | None = None,
    name: str | None = None,
) -> None:
    """Write a whole entry into the folder `out`, of whatever `load_pretrained` takes.

    Args:
        model: name or path.
        out: created where it is not there; must not hold an entry yet.
        facts: attributes of `About` to state, over what is known of the model already.
        refiner: name or path of the refiner that its samples shall pass through.
        name: by which its card says that it is loaded; pushing fills it in otherwise.

    Raises:
        InputError: an entry in `out`, a place where nothing can be written, or a model, refiner or
            options of sampling that do not fit.
    """
    refuse_existing_entry(out)
    check_writable(out)
    module = load_pretrained(model)
    if refiner is not None:
        use_refiner(module, load_refiner(refiner))
    about = replace(about_module(module), **facts)
    if isinstance(module, DiffusionModule):
        sampling = SampleOptions.read(about.sampling).over(module.sampling)
        about = replace(about, sampling=sampling.given())
    vars(module)["about"] = about
    write_files(out, whole_entry(module, name=name))


def whole_entry(
    module: nn.Module, folder: Path | None = None, name: str | None = None
) -> dict[str, bytes]:
    """The contents of all files of a module's entry, by path; the same module makes the same.

    Args:
        module: a codec, diffusion model or refiner.
        folder: its entry; a card and a picture there stay as they are, edited by hand perhaps.
        name: by which it is loaded, for a card that does not say it yet.
    """
    about, files = about_module(module), {}
    for file in (CARD, PICTURE):
        if folder is not None and (folder / file).exists():
            files[file] = (folder / file).read_bytes()
    try:
        card = files[CARD].decode() if CARD in files else write_card(module, about)
    except UnicodeDecodeError as error:
        raise InputError(f"{folder}/{CARD} must be a text in UTF-8: {error}.") from error
    files[CARD] = (address_card(card, name) if name else card).encode()
    if PICTURE not in files:
        stream = io.BytesIO()
        _make_picture(module).save(stream, "PNG")
        files[PICTURE] = stream.getvalue()
    return entry_files(module, about, files)


def _make_picture(module: Any) -> Image.Image:
    """Samples of a diffusion model, or what a codec or refiner makes of four photographs."""
    if isinstance(module, DiffusionModule):
        return to_pil(grid(module.sample(_SAMPLES, progress=True)))
    codec = module.codec if isinstance(module, Refiner) else module
    photos = _photos(max(_SIDE // codec.patch_size, 1) * codec.patch_size)
    codes = codec.encode(photos)
    rows = {"photo": photos}
    if isinstance(codec, DecoderCodec):
        rows["plain"] = codec.decode(codes, plain=True)
    rows["decoded"] = codec.decode(codes)
    if isinstance(module, Refiner):
        rows["refined"] = module.refine(rows["decoded"])
    return table(torch.stack(list(rows.values())), rows=list(rows))


def _photos(side: int) -> Tensor:
    """The photographs that ship with the package: (4, 3, side, side) uint8."""
    with resources.as_file(resources.files("lit_mbldm.data") / "photos") as folder:
        photos = [fit_square(photo, side) for photo in read_images(folder).values()]
    return torch.stack([torch.from_numpy(to_array(photo).copy()) for photo in photos])
