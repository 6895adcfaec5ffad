"""`load_pretrained`: from a name, folder or checkpoint to a ready module."""

from pathlib import Path
from typing import Any

import torch

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.errors import InputError
from lit_mbldm.zoo.entry import CONFIG, load_entry
from lit_mbldm.zoo.tree import build

_ASSETS = Path(__file__).parent / "assets"
# The key of a checkpoint under which LightningModules keep their class_path tree.
CHECKPOINT_KEY = "lit_mbldm"


def list_pretrained() -> list[str]:
    """Names of the entries that ship with the package."""
    return sorted(path.parent.name for path in _ASSETS.glob(f"*/{CONFIG}"))


def load_pretrained(name: str | Path) -> Any:
    """Load a codec or a model, in eval mode, on the CPU.

    Args:
        name: a shipped name, an entry's folder, or a training checkpoint (`.ckpt`), whose
            averaged weights are taken where it has them.

    Raises:
        InputError: nothing of that name, or an entry that is damaged or does not fit.
    """
    path = Path(name)
    if str(name) in list_pretrained():
        return load_entry(_ASSETS / str(name))
    if path.is_dir():
        return load_entry(path)
    if path.is_file():
        return _load_checkpoint(path)
    raise InputError(
        f"There is no codec or model {str(name)!r}. Expected a shipped name"
        f" ({', '.join(list_pretrained())}), an entry's folder or a checkpoint file."
    )


def load_codec(name: str | Path) -> PatchCodec:
    """Load a codec as `load_pretrained` does.

    Raises:
        InputError: as `load_pretrained`, or a model in place of a codec.
    """
    codec = load_pretrained(name)
    if not isinstance(codec, PatchCodec):
        raise InputError(
            f"{name} is a {type(codec).__name__}, expected a codec such as opq-32-8-8."
        )
    return codec


def _load_checkpoint(path: Path) -> torch.nn.Module:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        tree, weights = checkpoint[CHECKPOINT_KEY]["model"], checkpoint["state_dict"]
    except Exception as error:  # torch.load raises nearly anything on a file it cannot read
        raise InputError(
            f"{path} is no checkpoint of lit_mbldm: {type(error).__name__}: {error}"
        ) from error
    module = build(tree)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"The weights in {path} do not fit its model: {error}") from error
    return module.eval()
