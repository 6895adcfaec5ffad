"""Checkpoint files: saved so that a kill harms none; which is `last.ckpt`, and where it is."""

import glob
import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import replacing
from lit_mbldm.storage.urls import public

CONFIG_NAME = "resolved_config.yaml"  # of a run, in its folder
# the innermost version_N counts: folders above a run may be called so too
_LAST = re.compile(r"(?:/version_(\d+)(?:/(?!version_)[^/]*)*)?/last(?:-v(\d+))?\.ckpt$")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the former file, to the disk, and then takes its place.

    Lightning copies over the former file where that lies on another disk than temporary files. URLs
    are written as Lightning does.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint, and remove what saves that were killed left in its folder.

        Raises:
            OSError: the file cannot be written, such as for want of space; the former one is kept.
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

        Lightning would unpickle those of web servers, and keep a copy by base name alone.

        Args:
            path: local path or URL.
            map_location: as of torch.load.
            weights_only: of no effect, always True.

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
            raise unreadable(path, error) from error


def check_exists(path: _PATH | None) -> None:
    """Raise InputError where a checkpoint is named and there is no such file."""
    if path not in (None, "last", "best", "hpc") and not get_filesystem(path).exists(str(path)):
        raise InputError(
            f"There is no checkpoint {public(str(path))}. Name a file with --ckpt_path."
        )


def unreadable(path: _PATH, error: Exception) -> InputError:
    """What to tell the user of a file that torch cannot load."""
    return InputError(
        f"{public(str(path))} is damaged or no checkpoint ({type(error).__name__}). Name another"
        " one with --ckpt_path."
    )


def keep_last(trainer: L.Trainer) -> None:
    """Have one ModelCheckpoint write last.ckpt, a file: a kill can leave a link to nothing.

    Lightning writes none unless `save_last` is set, and then nothing is left to continue from. An
    explicit `save_last: false` is kept.
    """
    callbacks = _model_checkpoints(trainer)
    unset = [x for x in callbacks if x.save_last is None and not x.save_weights_only]
    keeper = last_keeper(trainer) or next(iter(unset), None)
    if keeper is not None:
        for callback in callbacks:  # a second one would write last-v1.ckpt
            callback.save_last = callback is keeper


def last_keeper(trainer: L.Trainer) -> ModelCheckpoint | None:
    """The callback that writes a last.ckpt from which training can continue, if any does."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    callbacks = _model_checkpoints(trainer)
    return next((x for x in callbacks if x.save_last and not x.save_weights_only), None)


def save_last(trainer: L.Trainer) -> str:
    """Write last.ckpt now, on every process; the path."""
    keeper = last_keeper(trainer)
    assert keeper is not None
    keeper._save_last_checkpoint(trainer, keeper._monitor_candidates(trainer))
    return keeper.last_model_path


def find_last(trainer: L.Trainer, run: str | None = None) -> str:
    """The last.ckpt of the newest run with this trainer's settings.

    It is looked for in the `dirpath` of a ModelCheckpoint, else in the given run, else in the runs
    of the first logger, or the version it names, else in `default_root_dir`. The newest run is the
    one with the highest number, since clocks may go back.

    Args:
        trainer: with the loggers and callbacks of the run.
        run: folder of a run.

    Raises:
        InputError: there is none.
    """
    folder = _checkpoint_folder(trainer, run)
    fs = get_filesystem(folder)
    found = {
        tuple(int(number or -1) for number in match.groups()): path
        for path in map(str, fs.glob(f"{folder}/last*.ckpt"))
        if (match := _LAST.search(path))
    }
    if not found:
        raise InputError(
            f"There is no last.ckpt in {folder}, where --ckpt_path last looks. Start without"
            " --ckpt_path, or name a file."
        )
    last = found[max(found)]
    return last if _is_local_file_protocol(folder) else str(fs.unstrip_protocol(last))


def continue_version(trainer: L.Trainer, path: str) -> None:
    """Have TensorBoard's logger go on in the folder of the run that wrote this checkpoint.

    Other loggers know no such thing or, as CSVLogger, would delete what is there: they start a new
    version.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if not isinstance(logger, TensorBoardLogger) or logger._version is not None:
        return
    run = Path(path).parent.parent
    if run.parent.absolute() == Path(logger.root_dir).absolute():
        logger._version = run.name
    elif any(callback.dirpath for callback in _model_checkpoints(trainer)):
        logger._version = (logger._get_next_version() or 1) - 1


def _model_checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]


def _checkpoint_folder(trainer: L.Trainer, run: str | None) -> str:
    """Where checkpoints are saved, with `*` for any run of the first logger."""
    for callback in _model_checkpoints(trainer):
        if callback.dirpath is not None:
            return glob.escape(str(callback.dirpath))
    if run is None and trainer.loggers:
        logger = trainer.loggers[0]
        root = os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name))
        version = getattr(logger, "_version", None)
        if version is None:
            return os.path.join(glob.escape(root), "*", "checkpoints")
        run = os.path.join(root, version if isinstance(version, str) else f"version_{version}")
    return os.path.join(glob.escape(run or str(trainer.default_root_dir)), "checkpoints")
