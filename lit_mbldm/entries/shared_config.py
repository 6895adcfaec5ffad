"""A training run's config as others may see it."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import lightning as L

from lit_mbldm.entries.entry_config import list_pretrained

# Only these texts are kept, and shipped codecs: others may be keys, passwords and folders.
_TEXTS = {"class_path", "precision", "schedule", "strategy", "accelerator"}
_TEXTS |= {"objective", "image_target", "sampler", "optimizer", "decay"}
_NULL = "check_val_every_n_epoch"  # of the trainer: null counts val_check_interval across epochs
_PRIVATE = {"logger", "plugins", "profiler"}  # of the trainer; loggers log in
_DEFAULTS = {name: p.default for name, p in inspect.signature(L.Trainer).parameters.items()}


def shared_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What others need of a run's config to train alike: classes, numbers and known words."""
    trainer = {
        name: value
        for name, value in config.get("trainer", {}).items()
        if name not in _PRIVATE and value != _DEFAULTS.get(name)
    }
    kept = {name: config.get(name) for name in ("seed_everything", "model", "data")}
    return dict(_shared({**kept, "trainer": trainer}) or {})


def _shared(value: Any, name: str = "") -> Any:
    """Part of a value; None where nothing of it is shared."""
    match value:
        case Mapping():
            parts = {key: _shared(part, key) for key, part in value.items()}
            return {k: part for k, part in parts.items() if part is not None or k == _NULL} or None
        case list() | tuple():
            return [part for item in value if (part := _shared(item)) is not None] or None
        case str() if name in _TEXTS or (name == "codec" and value in list_pretrained()):
            return value
        case int() | float() if math.isfinite(value):
            return value
    return None
