"""Tensors in a file, for what can be computed again."""

from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_mbldm.storage.atomic import replacing


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write contiguous CPU tensors; a warning where they cannot be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary)
    except OSError as error:
        rank_zero_warn(f"What was computed cannot be kept in {path.parent}: {error}")


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Read tensors; None, with a warning where the file is damaged, if there is no such file."""
    if not path.exists():
        return None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        rank_zero_warn(f"{path} is damaged ({error}); what it held is computed again.")
        return None
