"""Lightning's own verbs, with errors short enough to read."""

import difflib
import inspect
import pkgutil
import re
import sys
import warnings
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbldm.errors import InputError

_NOISE = re.compile(r"\s*(Given value|Subtypes|Errors:|Does not validate|- Expected a <)")


def run_trainer(argv: list[str]) -> None:
    """Run fit or validate.

    Raises:
        InputError: arguments or a config that cannot be parsed.
    """
    # The data modules' lengths are exact: their streams share batches out among workers.
    warnings.filterwarnings("ignore", message=r".*IterableDataset` has `__len__` defined")
    sys.argv[1:] = argv  # LightningCLI warns of arguments given in any other way
    try:
        _TrainerCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"config_filename": "resolved_config.yaml", "overwrite": True},
        )
    except ArgumentError as error:
        raise InputError(_explain(str(error))) from error
    except MisconfigurationException as error:
        raise InputError(str(error)) from error


class _TrainerCLI(LightningCLI):
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Build a parser that raises errors in place of printing a hundred options."""
        return super().init_parser(exit_on_error=False, **kwargs)


def _explain(message: str) -> str:
    text = "\n".join(line for line in message.splitlines() if not _NOISE.match(line))
    found = re.search(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted", message)
    if found is None:
        return f"{text}\nSee `lightning fit --help` and the files in configs/."
    accepted = list(inspect.signature(pkgutil.resolve_name(found[1])).parameters)
    close = difflib.get_close_matches(found[2], accepted, n=1)
    hint = f"\nDid you mean {close[0]!r}?" if close else ""
    return f"{text}\nIt accepts {', '.join(accepted)}.{hint}"
