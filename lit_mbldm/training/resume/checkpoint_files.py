"""Checkpoint files: saved so that a kill harms none, read without running what they hold."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.fabric.utilities.types import _PATH

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing
from lit_mbldm.storage.urls import public


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the former file, to the disk, and then takes its place.

    Lightning copies over the former file where that lies on another disk than temporary files. URLs
    are written as Lightning does.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint, and remove what saves that were killed left in its folder.

        Raises OSError where the file cannot be written, such as for want of space; the former one
        is kept.
        """
        if not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(".*.ckpt.*.tmp"):
            leftover.unlink(missing_ok=True)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer raises a RuntimeError on top
            cause = error if isinstance(error, OSError) else error.__context__ or error
            raise OSError(
                f"Cannot save the checkpoint {path}: {cause}. Former files in its folder are kept."
            ) from error

    def load_checkpoint(
        self,
        path: _PATH,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Load a checkpoint of tensors and plain values; objects are never unpickled.

        Lightning would unpickle those of web servers, and keep a copy by base name alone;
        `weights_only` is of no effect here.

        Raises:
            OSError: it cannot be reached; FileNotFoundError where there is no such file.
            InputError: the file is damaged, or no checkpoint.
        """
        fs, local = get_filesystem(path), _is_local_file_protocol(path)
        opened = fs.open(path, "rb") if local else BytesIO(fs.cat_file(path))
        try:
            with opened as file:
                return dict(torch.load(file, map_location, weights_only=True))
        except Exception as error:  # torch.load raises nearly anything on a file it cannot read
            raise InputError(
                f"{public(str(path))} is damaged or no checkpoint ({type(error).__name__}). Name"
                " another one with --ckpt_path."
            ) from error


def check_exists(path: _PATH | None) -> None:
    """Raise InputError where a checkpoint is named and there is no such file."""
    if path not in (None, "last", "best", "hpc") and not get_filesystem(path).exists(str(path)):
        raise InputError(
            f"There is no checkpoint {public(str(path))}. Name a file with --ckpt_path."
        )
