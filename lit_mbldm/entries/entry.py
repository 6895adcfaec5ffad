"""A zoo entry: a folder with `config.json` and `model.safetensors`.

It may hold a card (`README.md`), a picture (`samples.png`), a refiner's entry in `refiner/`, and
codes of training images (`training.safetensors`), by which the nearest to a sample is found.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lit_mbldm.entries.about import About, about_module
from lit_mbldm.entries.entry_config import (
    CONFIG,
    FILES,
    INDEX,
    REFINER,
    WEIGHTS,
    EntryConfig,
    read_bytes,
    read_config,
)
from lit_mbldm.entries.tree import assemble, describe, network_tensors
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import check_writable, write_whole


def save_entry(module: nn.Module, folder: Path, about: About | None = None) -> None:
    """Write a codec or model, and the refiner that it brings, as an entry."""
    check_new_entry(folder)
    write_files(folder, entry_files(module, about or about_module(module)))


def entry_files(
    module: nn.Module, about: About, others: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """The contents of an entry's files, by path; InputError where it could not be loaded again."""
    tree = describe(module)
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    for name, _ in network_tensors(module):
        found = tensors.get(name)
        if found is not None and found.dtype == torch.float32:
            half = found.half()
            tensors[name] = half if torch.equal(half.float(), found) else found
    try:
        assemble(tree, tensors, about)
        fingerprint = _fingerprint(module)
    except InputError as error:
        raise InputError(f"This {type(module).__name__} cannot be published: {error}") from error
    files = {WEIGHTS: save(tensors, metadata={"format": "pt"}), **(others or {})}
    if (codes := indexed_codes(module)) is not None:
        files[INDEX] = save({"codes": codes})
    refiner: nn.Module | None = getattr(module, "refiner", None)
    if refiner is not None:
        parts = entry_files(refiner, about_module(refiner))
        files |= {f"{REFINER}/{name}": data for name, data in parts.items()}
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, CONFIG: EntryConfig(tree, sha256, fingerprint, about).text().encode()}


def read_files(folder: Path) -> dict[str, bytes]:
    """Read all files of an entry, by path; DamagedError where one is another or unreadable."""
    sha256 = read_config(folder / CONFIG).sha256
    files = {name: read_bytes(folder / name, expected) for name, expected in sha256.items()}
    return {**files, CONFIG: read_bytes(folder / CONFIG)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write an entry's files, `config.json` last, so that an entry is there whole or not at all.

    Raises InputError where a file of another content is there; nothing was written.
    """
    new = [name for name in files if not os.path.lexists(folder / name)]
    for name in files.keys() - set(new):
        if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]:
            raise InputError(f"{folder} already holds another {name}. Choose another folder.")
    for name in sorted(new, key=lambda name: name == CONFIG):
        write_whole(folder / name, files[name])


def check_new_entry(folder: Path) -> None:
    """Raise InputError where the folder cannot be written, or holds what an entry would overwrite.

    Weights without a config are what an export that was killed leaves.
    """
    check_writable(folder)
    found = sorted(name for name in FILES if os.path.lexists(folder / name))
    if CONFIG in found or (found and WEIGHTS not in found):
        raise InputError(f"{folder} already holds {', '.join(found)}. Choose another folder.")


def load_entry(folder: Path) -> nn.Module:
    """Load an entry strictly, in eval mode, with its refiner; DamagedError names a damaged file."""
    if not os.path.lexists(folder / CONFIG):
        raise InputError(
            f"{folder} is no entry of lit_mbldm's zoo: it has no {CONFIG}. Expected what `lit-mbldm"
            " export` writes, a checkpoint, or a run's folder with checkpoints/last.ckpt."
        )
    config, refiner = read_config(folder / CONFIG), None
    if any(name.startswith(f"{REFINER}/") for name in config.sha256):
        expected = config.sha256.get(f"{REFINER}/{CONFIG}", "that of a listed file")
        read_bytes(folder / REFINER / CONFIG, expected)
        refiner = load_entry(folder / REFINER)
    data = read_bytes(folder / WEIGHTS, config.sha256[WEIGHTS])
    index = read_bytes(folder / INDEX, config.sha256[INDEX]) if INDEX in config.sha256 else None
    try:
        module = assemble(config.model, load(data), config.about)
        if (found := _fingerprint(module)) != config.fingerprint:
            raise InputError(f"The fingerprint is {found}, expected {config.fingerprint:.80}.")
        if refiner is not None:
            use_refiner(module, refiner)
        if index is not None:
            use_index(module, load(index)["codes"])
    except Exception as error:  # safetensors and torch have no one error for what they cannot hold
        reason = error if isinstance(error, InputError) else repr(error)
        raise InputError(
            f"The {CONFIG} and {WEIGHTS} in {folder} do not fit each other, or the {REFINER} or"
            f" {INDEX} there: {reason!s:.600} Export it again, or ask its owner to."
        ) from error
    return module


def use_refiner(module: nn.Module, refiner: nn.Module) -> None:
    """Pass the samples of a model through a refiner from now on; InputError where it has none."""
    take: Callable[[nn.Module], None] | None = getattr(module, "use_refiner", None)
    if take is None:
        raise InputError(f"A {type(module).__name__} has no samples to refine.")
    take(refiner)


def use_index(module: nn.Module, codes: Tensor) -> None:
    """Keep codes of training images, (M, S, h, w) uint8, beside a model, for those who ask.

    Raises:
        InputError: fewer than two, codes of another shape, or a module that is no diffusion model.
    """
    shape: tuple[int, ...] | None = getattr(module, "codes_shape", None)
    if shape is None or codes.dtype != torch.uint8 or codes.shape[1:] != shape or len(codes) < 2:
        raise InputError(
            "Expected codes of two training images or more, (M, S, h, w) uint8, for a"
            f" {type(module).__name__} of {shape or 'none'} each, got"
            f" {tuple(codes.shape)} {codes.dtype}."
        )
    vars(module)["indexed_codes"] = codes


def indexed_codes(module: nn.Module) -> Tensor | None:
    """The codes of training images that a model's entry brought, (M, S, h, w) uint8."""
    codes = vars(module).get("indexed_codes")
    return codes if isinstance(codes, Tensor) else None


def _fingerprint(module: nn.Module) -> str:
    """That of a codec, or of a model's codec."""
    fingerprint = getattr(getattr(module, "codec", module), "fingerprint", None)
    if not isinstance(fingerprint, str):
        raise InputError(f"A {type(module).__name__} is neither a codec nor a model with a codec.")
    return fingerprint
