"""Lightning's own verbs, with errors short enough to read."""

import atexit
import logging
import re
import sys
import warnings
from argparse import SUPPRESS
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbldm.cli.config_files import expand_bases
from lit_mbldm.cli.trainer_help import TRAINER_VERBS
from lit_mbldm.entries.shared_config import shared_config
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import leave
from lit_mbldm.training import ScoreSamples, WriteSamples
from lit_mbldm.training.callbacks.pictures import sample_every
from lit_mbldm.training.callbacks.samples import DrawSamples, diffusion_model
from lit_mbldm.training.callbacks.time_left import TimeLeft
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.module import TrainingModule
from lit_mbldm.training.resume.between_steps import SaveBetweenSteps
from lit_mbldm.training.resume.checkpoint_files import AtomicCheckpointIO, check_exists
from lit_mbldm.training.resume.last_checkpoint import CONFIG_NAME, keep_last, start_from
from lit_mbldm.training.resume.preemption import Preemption

# mixed precisions, which on a CPU all mean bfloat16
_HALF = ("bf16-mixed", "16-mixed", "bf16", "16", 16)
_NOISE = re.compile(r"\s*(Given value|Subtypes|Errors:|Does not validate|- Expected a <class).*\n?")
_EXPLAINED = (ArgumentError, MisconfigurationException)
# of the verbs that draw samples: the section of the settings, what they make, and what that does
# in the place of Lightning
_DRAWING: dict[str, tuple[str, type[DrawSamples], str]] = {
    "test": ("score", ScoreSamples, "verbose"),
    "predict": ("samples", WriteSamples, "return_predictions"),
}
# keys of fit's config, with their types and help
_EVERY: Any = PositiveInt | None
_OF_FIT: dict[str, tuple[Any, str]] = {
    "checkpoint_every": (
        _EVERY,
        "Steps from one last.ckpt to the next, in place of what callbacks say.",
    ),
    "sample_every": (
        _EVERY,
        "Steps from one grid of samples to the next, in place of each validation.",
    ),
    "from_pretrained": (
        str | None,
        "Model whose weights training starts from: a name, a folder, a checkpoint or org/repo; also"
        " --model.from_pretrained.",
    ),
}
# warnings that tell users of this package nothing
_UNTOLD = (
    # the data modules' lengths are exact: their streams share batches out among workers
    r".*IterableDataset` has `__len__` defined",
    # a checkpoint's state_dict, which test and predict load, holds the averaged weights
    r".*WeightAveraging callback, but loading",
    # classes are set by then, and no strategy here shards layers
    r".*WeightAveraging callback with a model that overrides the configure_model",
    # checkpoints and runs may move, and other settings continue them
    r"The dirpath has changed",
    r"Be aware that when using `ckpt_path`, callbacks used to create",
    # Lightning's and Inception's own use of torch
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`torch\.jit\.\w+` is deprecated",
)


def run_trainer(argv: list[str]) -> None:
    """Run fit, validate, test or predict.

    Raises InputError for arguments, a config or a checkpoint that does not fit.
    """
    for message in _UNTOLD:
        warnings.filterwarnings("ignore", message=message)
    adverts = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    adverts.addFilter(lambda record: not str(record.msg).startswith("💡 Tip"))
    # a key of the run, not of the model: what is published does not depend on it
    argv = [word.replace("--model.from_pretrained", "--from_pretrained", 1) for word in argv]
    sys.argv[1:] = expand_bases(argv)  # LightningCLI warns of arguments given in any other way
    raising = {"exit_on_error": False}  # in place of printing a hundred options
    try:
        _TrainerCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_kwargs={**raising, **{verb: {**raising} for verb in TRAINER_VERBS}},
            save_config_kwargs={"config_filename": CONFIG_NAME, "overwrite": True},
        )
    except (*_EXPLAINED, ValueError, RuntimeError) as error:
        told, advice = str(error), f"See `lightning {argv[0]} --help`."
        if "loading state_dict" in told:
            told = f"The checkpoint does not fit the config's model. {told[:600]}"
            advice = "Give the config it was trained with: the resolved_config.yaml of its run."
        elif not (isinstance(error, _EXPLAINED) or "Does not validate" in told):
            raise
        raise InputError(f"{_NOISE.sub('', told).rstrip()}\n{advice}") from error


class _TrainerCLI(LightningCLI):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._preemption = Preemption()
        try:
            super().__init__(*args, **kwargs)
        finally:
            self._preemption.give_back()

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Add each verb's own section; the other verbs take it in a config, unread."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for name, (kind, text) in _OF_FIT.items():
            shown = text if subcommand == "fit" else SUPPRESS
            parser.add_argument(f"--{name}", type=kind, default=None, help=shown)
        for verb, (section, callback, done) in _DRAWING.items():
            if verb == subcommand:
                parser.add_lightning_class_args(callback, section)
                parser.set_defaults({done: False})
            else:
                parser.add_argument(f"--{section}", type=dict, default={}, help=SUPPRESS)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Refuse a file that is not there before anything is built.

        Lightning would read it whole for hyperparameters, which models here do not save.
        """
        check_exists(self.config[self.config.subcommand].ckpt_path)

    def before_instantiate_classes(self) -> None:
        """Check the checkpoint of a verb that draws samples, and leave training's config alone."""
        if self.subcommand in _DRAWING and self._get(self.config, "ckpt_path") is None:
            raise InputError(
                f"`lightning {self.subcommand}` draws samples of a trained model: name a"
                " checkpoint with --ckpt_path."
            )
        if self.subcommand == "fit":
            save = SaveBetweenSteps(self._preemption.between_steps)
            self.trainer_defaults["callbacks"] = [TimeLeft(), save, self._preemption, *self._bar()]
        else:
            self.save_config_callback = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer, with a precision that the processor computes fast."""
        options = self._get(self.config_init, "trainer")
        if options["precision"] in _HALF and slow_in_half(options["accelerator"]):
            rank_zero_only(print)(
                "This CPU computes bfloat16 more slowly than float32:"
                f" precision is 32-true in place of {options['precision']}."
            )
            kwargs["precision"] = "32-true"
        return super().instantiate_trainer(**kwargs)

    def _bar(self) -> list[L.Callback]:
        """The bar that shows the time left; Lightning takes rich's where rich is installed."""
        settings = self._get(self.config, "trainer")
        given = settings.callbacks or []
        callbacks = given if isinstance(given, list) else [given]
        own = any("ProgressBar" in one.class_path for one in callbacks)
        return [] if own or settings.enable_progress_bar is False else [TQDMProgressBar()]

    def after_instantiate_classes(self) -> None:
        """Prepare checkpoints, and find the one to start from."""
        trainer, strategy = self.trainer, self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:  # and none of the user's own
            strategy.checkpoint_io = AtomicCheckpointIO()
        atexit.register(leave)  # Lightning does so for NCCL alone
        self._preemption.watch(trainer)
        if self.subcommand == "fit":
            if isinstance(self.model, TrainingModule):
                self.model.training_config = shared_config(self.config["fit"].as_dict())
            name = self._get(self.config, "from_pretrained")
            if name and self._get(self.config, "ckpt_path") is None:
                if not isinstance(self.model, DiffusionModule):
                    raise InputError(
                        "from_pretrained starts diffusion models, got a"
                        f" {type(self.model).__name__}: leave it out."
                    )
                self.model.start_from(name)
            keep_last(trainer, self._get(self.config, "checkpoint_every"))
            if steps := self._get(self.config, "sample_every"):
                sample_every(trainer, steps)
        arguments = self.config_init[self.subcommand]
        configs = [str(path) for path in self._get(self.config, "config") or []]
        arguments.ckpt_path = start_from(trainer, self.subcommand, arguments.ckpt_path, configs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Give the verbs that draw samples their numbers in place of data."""
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in _DRAWING:
            diffusion_model(self.model)
            samples = self._get(self.config_init, _DRAWING[subcommand][0])
            arguments["datamodule"] = samples.numbers(self.datamodule)
        return arguments


def slow_in_half(accelerator: Any) -> bool:
    """Whether this is the CPU, and one that is no faster in bfloat16.

    It is faster with AMX and with the AVX-512 of AMD. That of Intel, told by its float16,
    takes twice the time. ARM's do not count as long as nobody has measured that training gains
    by them.
    """
    gpu = CUDAAccelerator.is_available() or MPSAccelerator.is_available()
    if accelerator != "cpu" and (accelerator != "auto" or gpu):
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # older torch
        return not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    found = torch.cpu.get_capabilities()
    return not (
        found.get("amx_bf16") or (found.get("avx512_bf16") and not found.get("avx512_fp16"))
    )
