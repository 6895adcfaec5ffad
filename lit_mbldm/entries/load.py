"""`load_pretrained`: from a name, folder, checkpoint or repository to a ready module."""

import re
from pathlib import Path
from typing import Any

import torch

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.checkpoint import load_checkpoint
from lit_mbldm.entries.entry import load_entry
from lit_mbldm.entries.entry_config import ASSETS, CONFIG, list_pretrained
from lit_mbldm.errors import InputError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")


def load_pretrained(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Any:
    """Load a codec, a diffusion model or a refiner, in eval mode.

    A model brings its codec, and its refiner where its entry holds one. Every file of an entry is
    compared with its sha256, and nothing is unpickled but a local checkpoint's tensors.

    Args:
        name: a shipped name, an entry's folder, a training checkpoint (`.ckpt`), whose averaged
            weights are taken where it has them, a run's folder, whose `checkpoints/last.ckpt` is
            taken, or `org/repo`, `org/repo@revision` on the Hub. A shipped name comes first, then
            what is on the disk: `./name` is a folder.
        revision: branch, tag or commit on the Hub; its default branch otherwise.
        device: where the module goes; the CPU otherwise.
        cache_dir: of the Hub's files; the Hub client's own otherwise.
        local_files_only: take the Hub's files from the cache, without the network.

    Returns:
        An `ImageCodec`, `DiffusionModule` or `Refiner`.

    Raises:
        InputError: nothing of that name, an entry that is damaged or does not fit, or a device
            that cannot be used.
        OSError: the Hub fails.

    Example:
        >>> codec = load_pretrained("opq-32-8-8")
        >>> codec.bits_per_pixel
        0.75
    """
    path = find_local(name)
    if path is None:
        from lit_mbldm.entries.fetch import load_from_hub  # slow to import

        repository, revision = parse_repository(str(name), revision)
        module = load_from_hub(repository, revision, cache_dir, local_files_only)
    elif revision is not None:
        raise InputError(f"{name} is not on the Hub: leave the revision {revision!r} out.")
    else:
        module = load_entry(path) if path.is_dir() else load_checkpoint(path)
    try:
        return module.to(device or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device} cannot be used: {error}") from error


def find_local(name: str | Path) -> Path | None:
    """The entry's folder or the checkpoint on this machine that a name or path names."""
    if isinstance(name, str) and name in list_pretrained():
        return ASSETS / name
    path = Path(name)
    last = path / "checkpoints" / "last.ckpt"
    if last.exists() and not (path / CONFIG).exists():
        return last
    return path if path.exists() else None


def public_name(name: str | Path) -> str | None:
    """The name by which others find a model, too; None for what is on this machine alone."""
    if name in list_pretrained():
        return str(name)
    return None if find_local(name) else parse_repository(str(name))[0]


def parse_repository(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Split `org/repo[@revision]`; InputError where it is none, or says another revision."""
    repository, _, named = name.partition("@")
    if not REPOSITORY.fullmatch(repository) or Path(name).suffix in PICKLES:
        raise InputError(
            f"There is no such file or folder, nor a model {name!r}. Expected a shipped name"
            f" ({', '.join(list_pretrained())}), a checkpoint file, the folder of an entry or of a"
            " run, or org/repo[@revision] on the Hub, where pickled files are never read."
        )
    if named and revision not in (None, named):
        raise InputError(f"{name} says another revision than {revision!r}: leave one out.")
    return repository, named or revision


def load_codec(name: str | Path, device: str | None = None) -> ImageCodec:
    """Load a codec as `load_pretrained` does; InputError where it is a model."""
    codec = load_pretrained(name, device=device)
    if not isinstance(codec, ImageCodec):
        raise InputError(f"{name} is a {type(codec).__name__}, expected a codec as opq-32-8-8.")
    return codec
