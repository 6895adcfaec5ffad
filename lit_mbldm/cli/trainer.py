"""Lightning's own verbs, with errors short enough to read."""

import atexit
import difflib
import inspect
import os
import pkgutil
import re
import sys
import warnings
from argparse import SUPPRESS
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbldm.cli.config_files import expand_bases
from lit_mbldm.cli.quiet import quieten
from lit_mbldm.entries.shared_config import shared_config
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import leave
from lit_mbldm.training import ScoreSamples, WriteSamples
from lit_mbldm.training.callbacks.pictures import INTERVALS, set_intervals
from lit_mbldm.training.callbacks.time_left import TimeLeft
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.resume.between_steps import SaveBetweenSteps
from lit_mbldm.training.resume.checkpoints import AtomicCheckpointIO, check_exists, unreadable
from lit_mbldm.training.resume.last_checkpoint import (
    CONFIG_NAME,
    continue_version,
    find_last,
    keep_last,
)
from lit_mbldm.training.resume.preemption import Preemption
from lit_mbldm.training.resume.step_seeds import StepSeeds

# the section of a verb's settings, and what they make
_GROUPS: dict[str, tuple[str, type[L.Callback]]] = {
    "test": ("score", ScoreSamples),
    "predict": ("samples", WriteSamples),
}
_NOISE = re.compile(r"\s*(Given value|Subtypes|Errors:|Does not validate|- Expected a <)")


def run_trainer(argv: list[str]) -> None:
    """Run fit, validate, test or predict.

    Raises:
        InputError: arguments or a config that cannot be parsed.
    """
    quieten()
    sys.argv[1:] = expand_bases(argv)  # LightningCLI warns of arguments given in any other way
    try:
        _TrainerCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"config_filename": CONFIG_NAME, "overwrite": True},
        )
    except ArgumentError as error:
        raise InputError(_explain(str(error), argv[0])) from error
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise InputError(_explain_weights(str(error))) from error
    except ValueError as error:
        if "Does not validate" not in str(error):
            raise
        raise InputError(_explain(str(error), argv[0])) from error


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

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, with the arguments that are not the user's."""
        skipped = LightningCLI.subcommands()
        for arguments in skipped.values():
            arguments.add("weights_only")  # always True
        skipped["test"].add("verbose")
        skipped["predict"].add("return_predictions")
        return skipped

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
        if self.subcommand in _GROUPS:
            _check_checkpoint(self.subcommand, self._get(self.config, "ckpt_path"))
        if self.subcommand != "fit":
            self.save_config_callback = None
        self._preemption.take_signals()
        if self.subcommand == "fit":
            self.trainer_defaults["callbacks"] = [
                StepSeeds(),
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
        arguments = super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}
        if subcommand not in _GROUPS:
            return arguments
        if not isinstance(self.model, DiffusionModule):
            raise InputError(
                f"`lightning {subcommand}` draws samples of a diffusion model, this one is a"
                f" {type(self.model).__name__}. `lightning validate` measures a refiner."
            )
        drawing = self._get(self.config_init, _GROUPS[subcommand][0])
        arguments["datamodule"] = drawing.numbers(self.datamodule)
        arguments["verbose" if subcommand == "test" else "return_predictions"] = False
        return arguments


def _check_checkpoint(verb: str, path: str | None) -> None:
    if path is None:
        raise InputError(
            f"`lightning {verb}` draws samples of a trained model: name a checkpoint with"
            " --ckpt_path."
        )
    if path != "last" and not get_filesystem(path).exists(path):
        raise InputError(f"There is no checkpoint {path}. Name a file with --ckpt_path.")


def _explain(message: str, verb: str) -> str:
    text = "\n".join(line for line in message.splitlines() if not _NOISE.match(line))
    found = re.search(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted", message)
    if found is None:
        return f"{text}\nSee `lightning {verb} --help` and the files in configs/."
    accepted = list(inspect.signature(pkgutil.resolve_name(found[1])).parameters)
    close = difflib.get_close_matches(found[2], accepted, n=1)
    hint = f"\nDid you mean {close[0]!r}?" if close else ""
    return f"{text}\nIt accepts {', '.join(accepted)}.{hint}"


def _explain_weights(message: str) -> str:
    lines = [line.strip() for line in message.splitlines()[1:]]
    more = f"\n  and {len(lines) - 3} more" if len(lines) > 3 else ""
    shown = "\n  ".join(line[:200] for line in lines[:3])
    return (
        "The checkpoint does not fit the config's model. Give the config it was trained with, such"
        f" as the resolved_config.yaml of its run.\n  {shown}{more}"
    )
