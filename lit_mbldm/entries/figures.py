"""Measured numbers out of a file: a list made by hand, or what `lightning test` wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mbldm.entries.about import Figure, read_figures
from lit_mbldm.errors import InputError

# scores.json's names, as people read them, and the factor to their unit
_SCORES = {
    "fid": ("FID", 1),
    "kid": ("KID × 1000", 1000),
    "precision": ("Precision", 1),
    "recall": ("Recall", 1),
    "rfid": ("rFID of the codec", 1),
}


def read_figures_file(path: Path) -> tuple[Figure, ...]:
    """Read figures.

    Args:
        path: a JSON list of `{"metric", "value", "data", "command"}`, or a `scores.json`.

    Raises:
        InputError: another file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON file of figures: {error}") from error
    try:
        if isinstance(values, Mapping) and _SCORES.keys() <= values.keys():
            return _of_scores(values)
        return read_figures(values)
    except (InputError, TypeError, KeyError) as error:
        raise InputError(f"{path}: {error}") from error


def _of_scores(scores: Mapping[str, Any]) -> tuple[Figure, ...]:
    options = " ".join(f"{k} {v}" for k, v in scores["options"].items() if v is not None)
    data = (
        f"{scores['num_images']} samples ({options}) against {scores['reference_images']}"
        f" {scores['reference']}"
    )
    return tuple(
        Figure(metric, factor * scores[name], data, "lightning test")
        for name, (metric, factor) in _SCORES.items()
        if scores[name] is not None
    )
