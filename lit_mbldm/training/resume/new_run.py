"""The folder that a logger makes for a run, removed again where nothing came of it."""

import os
import re
import shutil
from contextlib import suppress

import lightning as L
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_mbldm.training.resume.last_checkpoint import CONFIG_NAME

_NOTHING = re.compile(rf"events\.out\..*|hparams\.yaml|{re.escape(CONFIG_NAME)}")


class NewRun:
    """Remembers which runs there were.

    Args:
        trainer: before it does anything.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self._trainer = trainer
        self._loggers = [x for x in trainer.loggers if isinstance(x, TensorBoardLogger | CSVLogger)]
        self._former = {path for logger in self._loggers for path in _folders(logger.root_dir)}

    @rank_zero_only
    def remove_if_nothing_was_done(self) -> None:
        """Remove the folders of a run that ended before its first step."""
        if self._trainer.global_step:
            return
        for logger in self._loggers:
            for folder in _folders(logger.root_dir) - self._former:
                own = os.path.basename(folder) in (f"version_{logger._version}", logger._version)
                if own and all(map(_NOTHING.fullmatch, os.listdir(folder))):
                    shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # of a first run; other runs keep it
                os.rmdir(logger.root_dir)


def _folders(root: str) -> set[str]:
    return {entry.path for entry in os.scandir(root)} if os.path.isdir(root) else set()
