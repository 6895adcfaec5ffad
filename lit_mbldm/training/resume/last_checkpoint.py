"""`last.ckpt`: who writes it, where it is, and the run that goes on from it."""

import glob
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol, get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lit_mbldm.errors import InputError

CONFIG_NAME = "resolved_config.yaml"  # of a run, in its folder


def keep_last(trainer: L.Trainer, every: int | None = None) -> None:
    """Have one ModelCheckpoint write last.ckpt, a file: a kill can leave a link to nothing.

    Lightning writes none unless `save_last` is set, and then nothing is left to continue from. An
    explicit `save_last: false` is kept.

    Args:
        trainer: before it starts.
        every: steps from one to the next; None leaves it to the callback.

    Raises:
        InputError: `every` without a ModelCheckpoint that saves whatever the value of a monitor.
    """
    callbacks = _model_checkpoints(trainer)
    unset = [x for x in callbacks if x.save_last is None and not x.save_weights_only]
    keeper = last_keeper(trainer) or next(iter(unset), None)
    if keeper is not None:
        for callback in callbacks:  # a second one would write last-v1.ckpt
            callback.save_last = callback is keeper
    if every is not None:
        saver: Any = keeper or trainer.checkpoint_callback
        if getattr(saver, "monitor", "") is not None:
            raise InputError("checkpoint_every needs a ModelCheckpoint without monitor.")
        saver._every_n_train_steps = every
        saver._every_n_epochs, saver._train_time_interval = 0, None


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


def start_from(
    trainer: L.Trainer, verb: str | None, path: str | None, configs: Sequence[str] = ()
) -> str | None:
    """Find the checkpoint `last`, and have the logs go on in the run of a checkpoint.

    Last is last.ckpt in the `dirpath` of a ModelCheckpoint, else of the run whose own config is
    given, else of the first logger's newest run, or the version it names, else in
    `default_root_dir`. The newest has the highest number, since clocks may go back.

    Args:
        trainer: with the loggers and callbacks of the run.
        verb: fit, validate, test or predict.
        path: of a checkpoint, or `last`.
        configs: paths of the configs that were given.

    Raises:
        InputError: there is no last.ckpt.
    """
    if path == "last":
        paths = map(os.path.abspath, configs)
        runs = [os.path.dirname(p) for p in paths if os.path.basename(p) == CONFIG_NAME]
        path = _find_last(trainer, runs[-1] if runs else None)
        warnings.filterwarnings("ignore", message=r"Checkpoint directory .* not empty")
        _continue_version(trainer, path)
    elif path and verb != "fit":
        _continue_version(trainer, path)
    if verb == "predict":
        trainer.loggers = []
    elif verb == "validate":  # logs to the run it measures, and makes none
        known = [x for x in trainer.loggers if getattr(x, "_version", "") is not None]
        trainer.loggers = known
    return path


def _find_last(trainer: L.Trainer, run: str | None) -> str:
    folder = _checkpoint_folder(trainer, run)
    fs = get_filesystem(folder)
    paths = map(str, fs.glob(f"{folder}/last*.ckpt"))
    found = [path for path in paths if re.search(r"/last(-v\d+)?\.ckpt$", path)]  # and no copies
    if not found:
        raise InputError(
            f"There is no last.ckpt in {folder}, where --ckpt_path last looks. Start without"
            " --ckpt_path, or name a file."
        )
    tails = {path: "/".join(path.split("/")[-3:]) for path in found}  # version_N/…/last-vM.ckpt
    last = max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", tails[path])])
    return last if _is_local_file_protocol(folder) else str(fs.unstrip_protocol(last))


def _continue_version(trainer: L.Trainer, path: str) -> None:
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
