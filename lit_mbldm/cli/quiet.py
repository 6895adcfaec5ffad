"""What Lightning and torch print that tells users of this package nothing."""

import logging
import re
import warnings

_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.callbacks.model_summary")
_ADVERT = "💡 Tip"
# no model here has the example input that they are counted on
_FLOPS = re.compile(r"(?m) \| (?:FLOPs|0) *$|\n.*Total Flops$")
_WARNINGS = (
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


def quieten() -> None:
    """Leave these lines out from now on."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_shorten)


def _shorten(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str):
        record.msg = _FLOPS.sub("", record.msg)
    return not str(record.msg).startswith(_ADVERT)
