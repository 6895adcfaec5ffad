"""`last.ckpt`: which callback writes it, and where `--ckpt_path last` finds it."""

import glob
import os
import re

import lightning as L
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_mbldm.errors import InputError

CONFIG_NAME = "resolved_config.yaml"  # of a run, in its folder
_LAST = re.compile(r"/last(?:-v(\d+))?\.ckpt$")


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
                break
    keeper = last_keeper(trainer)
    for callback in callbacks:
        beside = keeper is not None and callback.dirpath == keeper.dirpath
        if callback.save_last and beside and callback is not keeper:
            callback.save_last = False  # it would be a last-v1.ckpt


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
    found = [
        (_number(path), int(match[1] or 0), get_filesystem(path).modified(path), path)
        for path in _glob(f"{folder}/last*.ckpt")
        if (match := _LAST.search(path))
    ]
    if not found:
        raise InputError(
            f"There is no last.ckpt in {folder}, where --ckpt_path last looks. Start without"
            " --ckpt_path, or name a file."
        )
    number, *_, last = max(found)
    newest = max(map(_number, _glob(f"{os.path.dirname(folder)}/{CONFIG_NAME}")), default=-1)
    if 0 <= number < newest:
        rank_zero_warn(
            f"version_{newest} is newer than {os.path.dirname(os.path.dirname(last))}, but holds no"
            " last.ckpt: it ended before it saved one. The older run continues. Start without"
            " --ckpt_path if you do not want that."
        )
    return last


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
        logger._version = _number(path) if _number(path) >= 0 else os.path.basename(folder)
    elif any(callback.dirpath for callback in _model_checkpoints(trainer)):
        logger._version = (logger._get_next_version() or 1) - 1


def _model_checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]


def _checkpoint_folder(trainer: L.Trainer, run: str | None) -> str:
    """Where checkpoints are saved, with `*` for any run of the first logger."""
    for callback in _model_checkpoints(trainer):
        if callback.dirpath is not None:
            return glob.escape(str(callback.dirpath))
    if run is None and not trainer.loggers:
        run = str(trainer.default_root_dir)
    if run is not None:
        return os.path.join(glob.escape(run), "checkpoints")
    logger = trainer.loggers[0]
    version = getattr(logger, "_version", None)
    name = version if isinstance(version, str) else f"version_{version}"
    root = os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name))
    return os.path.join(
        glob.escape(root), glob.escape(name) if version is not None else "*", "checkpoints"
    )


def _glob(pattern: str) -> list[str]:
    """Existing files as full paths or URLs."""
    fs = get_filesystem(pattern)
    found = [str(path) for path in fs.glob(pattern) if fs.exists(path)]
    return found if _is_local_file_protocol(pattern) else [fs.unstrip_protocol(p) for p in found]


def _number(path: str) -> int:
    """The number of the run that a file is in, -1 where it has none."""
    found = re.search(r"/version_(\d+)/", path)
    return int(found[1]) if found else -1
