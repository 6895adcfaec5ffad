"""Lightning's own verbs, with errors short enough to read."""

import atexit
import logging
import os
import re
import sys
import warnings
from argparse import SUPPRESS
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbldm.cli.config_files import expand_bases
from lit_mbldm.entries.shared_config import shared_config
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import leave
from lit_mbldm.training import ScoreSamples, WriteSamples
from lit_mbldm.training.callbacks.pictures import INTERVALS, set_intervals
from lit_mbldm.training.callbacks.time_left import TimeLeft
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.resume.between_steps import SaveBetweenSteps
from lit_mbldm.training.resume.checkpoints import (
    CONFIG_NAME,
    AtomicCheckpointIO,
    check_exists,
    continue_version,
    find_last,
    keep_last,
    unreadable,
)
from lit_mbldm.training.resume.preemption import Preemption

_NOISE = re.compile(r"\s*(Given value|Subtypes|Errors:|Does not validate|- Expected a <class)")
# the section of a verb's settings, and what they make
_GROUPS: dict[str, tuple[str, type[L.Callback]]] = {
    "test": ("score", ScoreSamples),
    "predict": ("samples", WriteSamples),
}
_RETURNED = {"test": "verbose", "predict": "return_predictions"}  # which the callbacks do
# warnings that tell users of this package nothing
_UNTOLD = (
    # the data modules' lengths are exact: their streams share batches out among workers
    r".*IterableDataset` has `__len__` defined",
    # a checkpoint's state_dict, which test and predict load, holds the averaged weights
    r".*WeightAveraging callback, but loading",
    # checkpoints and runs may move, and other settings continue them
    r"The dirpath has changed",
    r"Be aware that when using `ckpt_path`, callbacks used to create",
    # Lightning's and Inception's own use of torch
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`torch\.jit\.\w+` is deprecated",
)


def run_trainer(argv: list[str]) -> None:
    """Run fit, validate, test or predict.

    Raises:
        InputError: arguments or a config that cannot be parsed.
    """
    for message in _UNTOLD:
        warnings.filterwarnings("ignore", message=message)
    adverts = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    adverts.addFilter(lambda record: not str(record.msg).startswith("💡 Tip"))
    sys.argv[1:] = expand_bases(argv)  # LightningCLI warns of arguments given in any other way
    try:
        _TrainerCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"config_filename": CONFIG_NAME, "overwrite": True},
        )
    except (ArgumentError, MisconfigurationException) as error:
        raise InputError(_explain(error, argv[0])) from error
    except ValueError as error:
        if "Does not validate" not in str(error):
            raise
        raise InputError(_explain(error, argv[0])) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise InputError(
            "The checkpoint does not fit the config's model. Give the config it was trained with,"
            f" such as the resolved_config.yaml of its run.\n{str(error)[:600]}"
        ) from error


class _TrainerCLI(LightningCLI):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._preemption = Preemption()
        try:
            super().__init__(*args, **kwargs)
        finally:
            self._preemption.give_back()

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Build a parser that raises errors in place of printing a hundred options."""
        return super().init_parser(exit_on_error=False, **kwargs)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Add each verb's own group; the other verbs take its section in a config, unread."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for name, text in INTERVALS.items():
            shown = text if subcommand == "fit" else SUPPRESS
            parser.add_argument(f"--{name}", type=PositiveInt | None, default=None, help=shown)
        for verb, (group, callback) in _GROUPS.items():
            if verb == subcommand:
                parser.add_lightning_class_args(callback, group)
                parser.set_defaults({_RETURNED[verb]: False})
            else:
                parser.add_argument(f"--{group}", type=dict, default={}, help=SUPPRESS)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Refuse a file that is no checkpoint, or is not there, before anything is built."""
        check_exists(self.config[self.config.subcommand].ckpt_path)
        try:
            super()._parse_ckpt_path()
        except ArgumentError:
            raise
        except Exception as error:  # torch.load raises nearly anything on a file it cannot read
            raise unreadable(self.config[self.config.subcommand].ckpt_path, error) from error

    def before_instantiate_classes(self) -> None:
        """Check the checkpoint of a verb that draws samples, and leave training's config alone."""
        if self.subcommand in _GROUPS and self._get(self.config, "ckpt_path") is None:
            raise InputError(
                f"`lightning {self.subcommand}` draws samples of a trained model: name a"
                " checkpoint with --ckpt_path."
            )
        if self.subcommand != "fit":
            self.save_config_callback = None
        self._preemption.take_signals()
        if self.subcommand == "fit":
            self.trainer_defaults["callbacks"] = [
                TimeLeft(),
                SaveBetweenSteps(self._preemption.between_steps),
                self._preemption,
            ]

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer, with checkpoints that a kill cannot harm."""
        given = self._get(self.config_init, "trainer.plugins") or []
        plugins = [*given] if isinstance(given, list) else [given]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        atexit.register(leave)  # Lightning does so for NCCL alone
        return super().instantiate_trainer(plugins=plugins, **kwargs)

    def after_instantiate_classes(self) -> None:
        """See that there is a last checkpoint, and find the one of earlier runs if asked for."""
        self._preemption.watch(self.trainer)
        if self.subcommand == "fit":
            if isinstance(self.model, CodecModule):
                self.model.training_config = shared_config(self.config[self.subcommand].as_dict())
            keep_last(self.trainer)
            every = {name: self._get(self.config, name) for name in INTERVALS}
            set_intervals(self.trainer, **every)
        arguments = self.config_init[self.subcommand]
        last = arguments.ckpt_path == "last"
        if last:
            arguments.ckpt_path = find_last(self.trainer, self._run_of_config())
            warnings.filterwarnings("ignore", message=r"Checkpoint directory .* not empty")
        if arguments.ckpt_path and (last or self.subcommand != "fit"):
            continue_version(self.trainer, arguments.ckpt_path)
        self._drop_logs()

    def _run_of_config(self) -> str | None:
        """The folder of the run whose own config was given, if it was."""
        paths = [str(path) for path in self._get(self.config, "config") or []]
        names = [path for path in paths if os.path.basename(path) == CONFIG_NAME]
        return os.path.dirname(os.path.abspath(names[-1])) if names else None

    def _drop_logs(self) -> None:
        """Log nothing where it would start a run of its own: what draws or measures has none."""
        if self.subcommand == "predict":
            self.trainer.loggers = []
        elif self.subcommand == "validate":
            known = [x for x in self.trainer.loggers if getattr(x, "_version", "") is not None]
            self.trainer.loggers = known

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Give the verbs that draw samples their numbers in place of data."""
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand not in _GROUPS:
            return arguments
        if not isinstance(self.model, DiffusionModule):
            raise InputError(
                f"`lightning {subcommand}` draws samples of a diffusion model, this one is a"
                f" {type(self.model).__name__}. `lightning validate` measures a refiner."
            )
        drawing = self._get(self.config_init, _GROUPS[subcommand][0])
        arguments["datamodule"] = drawing.numbers(self.datamodule)
        return arguments


def _explain(error: Exception, verb: str) -> str:
    lines = [line for line in str(error).splitlines() if not _NOISE.match(line)]
    return "\n".join([*lines, f"See `lightning {verb} --help`."])
