"""Whole entries: weights, config, card and picture, out of anything that loads."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lit_mbldm.entries.about import about_module
from lit_mbldm.entries.entry import entry_files, refuse_existing_entry, use_refiner, write_files
from lit_mbldm.entries.entry_config import CARD, PICTURE
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import address_card, write_card
from lit_mbldm.hub.preview import make_picture
from lit_mbldm.storage.atomic import check_writable
from lit_mbldm.training import SampleOptions
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import load_refiner


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
        out: folder, created where it is not there; must not hold an entry yet.
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
    """The contents of all files of a module's entry, by path; samples show their progress.

    Args:
        module: a codec, diffusion model or refiner.
        folder: its entry, whose card and picture stay as they are, edited by hand perhaps; where
            there are none they are made.
        name: by which it is loaded, for a card that does not say it yet.

    Raises:
        InputError: another kind of module, options of sampling that do not fit it, or a card that
            is no text.
    """
    about = about_module(module)
    card, picture = (folder / file if folder else None for file in (CARD, PICTURE))
    text = _read(card) if card and card.exists() else write_card(module, about)
    shown = picture.read_bytes() if picture and picture.exists() else _png(module)
    addressed = address_card(text, name) if name else text
    return entry_files(module, about, {CARD: addressed.encode(), PICTURE: shown})


def _read(card: Path) -> str:
    try:
        return card.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{card} must be a text in UTF-8: {error}.") from error


def _png(module: nn.Module) -> bytes:
    stream = io.BytesIO()
    make_picture(module).save(stream, "PNG")
    return stream.getvalue()
