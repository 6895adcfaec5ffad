"""A zoo entry: a folder with `config.json` and `model.safetensors`.

It may hold a card (`README.md`), a picture (`samples.png`), and a refiner's entry in `refiner/`.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors.torch import load, save
from torch import Tensor, nn

from lit_mbldm.entries.about import About, about_module
from lit_mbldm.entries.entry_config import (
    CONFIG,
    FILES,
    MAX_BYTES,
    REFINER,
    WEIGHTS,
    EntryConfig,
    parse_config,
    read_config,
)
from lit_mbldm.entries.integrity import DamagedError, read_checked, read_whole
from lit_mbldm.entries.tree import MAX_TENSORS, build, describe
from lit_mbldm.entries.weights import assemble, check_weights, fingerprint_of
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import write_synced

_MAX_HEADER = 1 << 24  # bytes
_UNFINISHED = ".unfinished"


@runtime_checkable
class TakesRefiner(Protocol):
    """A model whose samples pass through a refiner."""

    def use_refiner(self, refiner: nn.Module) -> None:
        """Take it over."""


def save_entry(module: nn.Module, folder: Path, about: About | None = None) -> None:
    """Write a module as an entry; a refiner that it brings is written too.

    Args:
        module: a codec or model of lit_mbldm.
        folder: created where missing; must not hold an entry yet.
        about: for people; what it was loaded with otherwise.

    Raises:
        InputError: the folder holds an entry already, or the module cannot be one.
    """
    refuse_existing_entry(folder)
    files = entry_files(module, about or about_module(module))
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, files)


def entry_files(
    module: nn.Module, about: About, others: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """The contents of an entry's files, by path.

    Args:
        module: a codec or model of lit_mbldm.
        about: for people.
        others: files beside config and weights, such as the card.

    Raises:
        InputError: a module that could not be loaded again.
    """
    tree = describe(module)
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    try:
        check_weights(build(tree, len(tensors)), tensors)
        fingerprint = fingerprint_of(module)
    except InputError as error:
        raise InputError(f"This {type(module).__name__} cannot be published: {error}") from error
    files = {WEIGHTS: save(tensors, metadata={"format": "pt"}), **(others or {})}
    refiner: nn.Module | None = getattr(module, "refiner", None)
    if refiner is not None:
        parts = entry_files(refiner, about_module(refiner))
        files |= {f"{REFINER}/{name}": data for name, data in parts.items()}
    return seal(EntryConfig(tree, {}, fingerprint, about), files)


def seal(config: EntryConfig, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """These files, and the `config.json` that holds the sha256 of each."""
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {CONFIG: replace(config, sha256=sha256).text().encode(), **files}


def read_files(folder: Path) -> dict[str, bytes]:
    """Read all files of an entry, by path, `config.json` among them.

    Raises:
        DamagedError: one that is missing or is another.
    """
    path = folder / CONFIG
    data = read_whole(path, MAX_BYTES)
    sha256 = parse_config(path, data).sha256
    files = {name: read_checked(folder / name, digest) for name, digest in sha256.items()}
    return {CONFIG: data, **files}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write an entry's files, `config.json` last, so that an entry is there whole or not at all.

    They are written beside the entry and moved at the end. A run that was killed leaves its own,
    which the next one removes. What is there already is not written again.

    Raises:
        InputError: a file of another content is there; nothing was written.
    """
    missing = [name for name in files if not os.path.lexists(folder / name)]
    for name in files.keys() - set(missing):
        if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]:
            raise InputError(f"{folder} already holds another {name}. Choose another folder.")
    unfinished = folder / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name in missing:
            write_synced(unfinished / name, files[name])
        for name in sorted(missing, key=lambda name: name == CONFIG):
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(unfinished / name, folder / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def refuse_existing_entry(folder: Path) -> None:
    """Raise InputError where the folder holds an entry, or files that one would overwrite.

    Weights without a config are what an export that was killed leaves.
    """
    found = sorted(name for name in FILES if os.path.lexists(folder / name))
    if CONFIG in found or (found and WEIGHTS not in found):
        raise InputError(f"{folder} already holds {', '.join(found)}. Choose another folder.")


def load_entry(folder: Path) -> nn.Module:
    """Load an entry strictly, in eval mode, with the refiner that it holds.

    Raises:
        DamagedError: a file that is missing, cannot be read or has another sha256.
        InputError: no entry, another format, or tensors that do not fit the class.
    """
    if not os.path.lexists(folder / CONFIG):
        raise InputError(
            f"{folder} is no entry of lit_mbldm's zoo: it has no {CONFIG}. Expected a folder that"
            " `lit-mbldm export` or `lit-mbldm pull` wrote, a checkpoint, or a run's folder with"
            " checkpoints/last.ckpt."
        )
    return _load(folder, read_config(folder / CONFIG))


def _load(folder: Path, config: EntryConfig) -> nn.Module:
    path = folder / WEIGHTS
    try:
        module = build(config.model, MAX_TENSORS)
        largest = _MAX_HEADER + sum(tensor.nbytes for tensor in module.state_dict().values())
        data = read_checked(path, config.sha256[WEIGHTS], largest)
        assemble(module, _tensors(data), config.about)
        fingerprint = fingerprint_of(module)
        if fingerprint != config.fingerprint:
            raise InputError(
                f"Its codec has the fingerprint {fingerprint}, expected {config.fingerprint:.80}."
            )
    except DamagedError:
        raise
    except InputError as error:  # it was so from the start
        raise InputError(
            f"{path} and its {CONFIG} do not fit each other: {error} Export it again, or ask its"
            " owner to."
        ) from error
    _bring_refiner(module, folder, config.sha256)
    return module


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except Exception as error:  # safetensors has no one error for what torch cannot hold
        raise InputError(
            f"It is no safetensors file ({type(error).__name__}: {error!s:.200})."
        ) from error


def _bring_refiner(module: nn.Module, folder: Path, sha256: Mapping[str, str]) -> None:
    inside = f"{REFINER}/"
    digests = {k.removeprefix(inside): v for k, v in sha256.items() if k.startswith(inside)}
    if not digests:
        return
    if not isinstance(module, TakesRefiner):
        raise InputError(
            f"{folder / CONFIG} names a {REFINER}, which a {type(module).__name__} cannot use."
            " Export it again, or ask its owner to."
        )
    path = folder / REFINER / CONFIG
    config = read_config(path, digests.get(CONFIG, "missing"))
    if digests.get(WEIGHTS) != config.sha256[WEIGHTS]:
        raise DamagedError(path, f"its sha256 of {WEIGHTS} is not that in {folder / CONFIG}")
    refiner = _load(path.parent, config)
    try:
        module.use_refiner(refiner)
    except InputError as error:
        raise InputError(f"{path.parent} does not fit the model in {folder}. {error}") from error
