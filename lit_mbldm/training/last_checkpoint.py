"""`last.ckpt`: which callback writes it, and where `--ckpt_path last` finds it."""

import os
import re
from pathlib import PurePosixPath
from typing import Any

import lightning as L
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_mbldm.errors import InputError


def keep_last(trainer: L.Trainer) -> None:
    """Have last.ckpt written where no ModelCheckpoint says whether it wants one.

    Lightning writes none unless `save_last` is set, and then nothing is left to continue from. An
    explicit `save_last: false` is kept.

    Raises:
        InputError: `save_last: link`, which a kill can leave pointing to a file already removed.
    """
    callbacks = _model_checkpoints(trainer)
    if any(callback.save_last == "link" for callback in callbacks):
        raise InputError(
            "save_last: link of a ModelCheckpoint can leave a run that is killed without a last"
            " checkpoint. Expected save_last: true."
        )
    if last_keeper(trainer) is None:
        for callback in callbacks:
            if callback.save_last is None and not callback.save_weights_only:
                callback.save_last = True
                return


def last_keeper(trainer: L.Trainer) -> ModelCheckpoint | None:
    """The callback that writes a last.ckpt from which training can continue, if any does."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    for callback in _model_checkpoints(trainer):
        if callback.save_last and not callback.save_weights_only:
            return callback
    return None


def save_last(trainer: L.Trainer) -> str:
    """Write last.ckpt now, on every process; the path.

    To be called where a ModelCheckpoint could save, and not keeping it from doing so.
    """
    keeper = last_keeper(trainer)
    assert keeper is not None
    saved = keeper._last_global_step_saved
    keeper._save_last_checkpoint(trainer, keeper._monitor_candidates(trainer))
    keeper._last_global_step_saved = saved
    return keeper.last_model_path


def find_last(trainer: L.Trainer) -> str:
    """The newest last.ckpt that earlier runs with this trainer's settings wrote.

    It is looked for in the `dirpath` of a ModelCheckpoint, else in the folders of all versions of
    the first logger, or of the version it names, else in `default_root_dir`.

    Raises:
        InputError: there is none.
    """
    callbacks = _model_checkpoints(trainer)
    found: dict[str, Any] = {}
    for callback in callbacks:
        for folder in _folders(trainer, callback):
            for path in _last_files(folder, callback):
                found[path] = get_filesystem(path).modified(path)
    if not found:
        places = sorted({place for callback in callbacks for place in _places(trainer, callback)})
        raise InputError(
            f"There is no last.ckpt in {' or '.join(places) or 'this config: it saves none'}, where"
            " --ckpt_path last looks. Start without --ckpt_path, or name a file."
        )
    return max(found, key=found.__getitem__)


def warn_of_newer_run(trainer: L.Trainer, path: str) -> None:
    """Say so where a newer run of the logger has no last.ckpt, so that an older one continues."""
    former = _version(os.path.dirname(path))
    for callback in _model_checkpoints(trainer):
        folders = [f for f in _folders(trainer, callback) if not _last_files(f, callback)]
        newest = max(folders, key=_version, default="")
        if 0 <= former < _version(newest):
            rank_zero_warn(
                f"{os.path.dirname(newest)} is newer than {os.path.dirname(os.path.dirname(path))},"
                " but holds no last.ckpt: it ended before it saved one, or trained nothing. The"
                " older run continues. Start without --ckpt_path if you do not want that."
            )
            return


def continue_version(trainer: L.Trainer, path: str) -> None:
    """Have TensorBoard's logger go on in the folder of the run that wrote this checkpoint.

    Other loggers know no such thing or, as CSVLogger, would delete what is there: they start a new
    version.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if not isinstance(logger, TensorBoardLogger) or logger._version is not None:
        return
    folder = os.path.dirname(os.path.dirname(path))
    if os.path.abspath(os.path.dirname(folder)) == os.path.abspath(logger.root_dir):
        name = os.path.basename(folder)
        number = name.removeprefix("version_")
        logger._version = int(number) if number.isdecimal() else name
    elif latest := logger._get_next_version():
        logger._version = latest - 1


def _model_checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]


def _places(trainer: L.Trainer, callback: ModelCheckpoint) -> list[str]:
    """Where a callback saves, with `*` for any version."""
    if callback.dirpath is not None:
        return [str(callback.dirpath)]
    if not trainer.loggers:
        return [os.path.join(trainer.default_root_dir, "checkpoints")]
    logger = trainer.loggers[0]
    version = getattr(logger, "_version", None)
    folder = (
        "*" if version is None else version if isinstance(version, str) else f"version_{version}"
    )
    root = logger.save_dir or trainer.default_root_dir
    return [os.path.join(root, str(logger.name), folder, "checkpoints")]


def _folders(trainer: L.Trainer, callback: ModelCheckpoint) -> list[str]:
    """The folders that `_places` stands for."""
    folders = []
    for place in _places(trainer, callback):
        root, star, rest = place.partition("*")
        folders += [path.rstrip("/") + rest for path in _listing(root)] if star else [place]
    return folders


def _last_files(folder: str, callback: ModelCheckpoint) -> list[str]:
    pattern = re.compile(rf"{callback.CHECKPOINT_NAME_LAST}(-v\d+)?{callback.FILE_EXTENSION}")
    fs = get_filesystem(folder)
    return [
        path
        for path in _listing(folder)
        if pattern.fullmatch(PurePosixPath(path).name) and fs.exists(path)
    ]


def _version(folder: str) -> int:
    """The number of a run by its folder of checkpoints, -1 where it has none."""
    number = PurePosixPath(folder).parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _listing(folder: str) -> list[str]:
    """What is in a folder, as full paths or URLs; nothing if there is no such folder."""
    fs = get_filesystem(folder)
    names = fs.ls(folder, detail=False) if fs.isdir(folder) else []
    return [*names] if _is_local_file_protocol(folder) else [fs.unstrip_protocol(n) for n in names]
