"""Tensors in a file with their sha256, for what can be computed again."""

import hashlib
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_mbldm.storage.atomic import replacing


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write contiguous CPU tensors; a warning where they cannot be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, {"sha256": _sha256(tensors)})
    except OSError as error:
        rank_zero_warn(f"Reference features cannot be kept in {path.parent}: {error}")


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Read tensors; None, with a warning where the file is damaged, if there is no such file."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get("sha256") != _sha256(tensors):
                raise ValueError("its sha256 differs")
    except (SafetensorError, OSError, ValueError) as error:
        rank_zero_warn(f"{path} is damaged ({error}); what it held is computed again.")
        return None
    return tensors


def _sha256(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
