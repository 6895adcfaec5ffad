"""`last.ckpt`: which callback writes it, and where `--ckpt_path last` finds it."""

import glob
import os
import re
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lit_mbldm.errors import InputError

CONFIG_NAME = "resolved_config.yaml"  # of a run, in its folder
_LAST = re.compile(r"(?:/version_(\d+)/.*)?/last(?:-v(\d+))?\.ckpt$")


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
    unset = [x for x in callbacks if x.save_last is None and not x.save_weights_only]
    if unset and last_keeper(trainer) is None:
        unset[0].save_last = True
    keeper = last_keeper(trainer)
    for callback in callbacks:
        if callback.save_last and callback is not keeper is not None:
            beside = callback.dirpath == keeper.dirpath
            callback.save_last = not beside  # it would be a last-v1.ckpt


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
