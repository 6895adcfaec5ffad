"""A zoo entry: a folder with `config.json` and `model.safetensors`."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing
from lit_mbldm.zoo.tree import build, describe

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_entry(module: nn.Module, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write a module as an entry.

    Args:
        module: a codec or model of lit_mbldm.
        folder: created where missing; must not hold an entry yet.
        about: JSON values kept beside the tree: the training data, its licence, the command.

    Raises:
        InputError: the folder holds an entry already.
    """
    refuse_existing_entry(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    weights = save(tensors)
    config = {
        "format": FORMAT,
        "version": importlib.metadata.version("lit-mbldm"),
        "model": describe(module),
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
        **(about or {}),
    }
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def refuse_existing_entry(folder: Path) -> None:
    """Raise InputError where the folder already holds an entry."""
    if (folder / CONFIG).exists():
        raise InputError(f"{folder} already holds an entry. Choose another folder or remove it.")


def load_entry(folder: Path) -> nn.Module:
    """Load an entry strictly, in eval mode.

    Raises:
        InputError: a missing or unreadable file, another format, a wrong sha256, or tensors that
            do not fit the class.
    """
    config = _read_config(folder / CONFIG)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(f"{folder} lacks {WEIGHTS}. Fetch or write the entry again.") from error
    expected = config["sha256"][WEIGHTS]
    actual = hashlib.sha256(weights).hexdigest()
    if actual != expected:
        raise InputError(
            f"{folder / WEIGHTS} is damaged: its sha256 is {actual}, {CONFIG} says {expected}."
            " Fetch or write the entry again."
        )
    module = build(config["model"])
    try:
        module.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
    return module.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found, _, _ = config["format"], config["sha256"][WEIGHTS], config["model"]["class_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no readable entry of the zoo: {error!r}.") from error
    if found != FORMAT:
        raise InputError(f"{path} has format {found}, this lit_mbldm reads {FORMAT}: update it.")
    return config
