"""Whole entries: weights, config, card and picture, out of anything that loads."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lit_mbldm.errors import InputError
from lit_mbldm.training.refiner import load_refiner
from lit_mbldm.zoo.about import about_module
from lit_mbldm.zoo.card import address_card, write_card
from lit_mbldm.zoo.entry import TakesRefiner, entry_files, refuse_existing_entry, write_files
from lit_mbldm.zoo.entry_config import CARD, PICTURE
from lit_mbldm.zoo.load import find_folder, load_pretrained
from lit_mbldm.zoo.picture import draw_picture


def export(
    model: str | Path,
    out: Path,
    facts: dict[str, Any],
    refiner: str | Path | None = None,
    name: str | None = None,
) -> None:
    """Write a whole entry.

    Args:
        model: whatever `load_pretrained` takes.
        out: folder, created where missing; must not hold an entry yet.
        facts: attributes of `About` to state, over what is known of the model already.
        refiner: name or path of the refiner that its samples shall pass through.
        name: by which its card says that it is loaded; pushing fills it in otherwise.

    Raises:
        InputError: an entry in `out`, or a model, refiner or options of sampling that do not fit.
    """
    refuse_existing_entry(out)
    module = load_pretrained(model)
    if refiner is not None:
        if not isinstance(module, TakesRefiner):
            raise InputError(f"A {type(module).__name__} has no samples to refine.")
        module.use_refiner(load_refiner(refiner))
    vars(module)["about"] = replace(about_module(module), **facts)
    files = whole_entry(module, name)
    out.mkdir(parents=True, exist_ok=True)
    write_files(out, files)


def whole_entry(model: nn.Module | str | Path, name: str | None = None) -> dict[str, bytes]:
    """The contents of all files of a model's entry, by path.

    The card and the picture of a folder stay as they are, edited by hand perhaps; where there are
    none they are made, and samples show their progress.

    Args:
        model: a codec, diffusion model or refiner, or whatever `load_pretrained` takes.
        name: by which it is loaded, for a card that does not say it yet.

    Raises:
        InputError: as `load_pretrained`, or another kind of module.
    """
    module = model if isinstance(model, nn.Module) else load_pretrained(model)
    folder = None if isinstance(model, nn.Module) else find_folder(model)
    about = about_module(module)
    others = _kept(folder) if folder else {}
    card = others[CARD].decode() if CARD in others else write_card(module, about)
    others[CARD] = (address_card(card, name) if name else card).encode()
    if PICTURE not in others:
        others[PICTURE] = _png(module)
    return entry_files(module, about, others)


def _kept(folder: Path) -> dict[str, bytes]:
    paths = [folder / name for name in (CARD, PICTURE)]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _png(module: nn.Module) -> bytes:
    stream = io.BytesIO()
    draw_picture(module).save(stream, "PNG")
    return stream.getvalue()
