"""What is known of a model besides its weights: data, licence, figures, sampling."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_FACTS = {
    **dict.fromkeys(("license", "data", "terms", "command", "base_model"), str),
    "steps": int,
    "config": dict,
    "sampling": dict,
    "figures": list,
}
_SAMPLING = {
    **dict.fromkeys(("eta", "temperature", "guidance"), int | float),
    "steps": int,
    "sampler": str,
    "guidance_interval": list,
}
_FIGURE = {"metric": str, "value": int | float, "data": str, "command": str}
# scores.json's names, as people read them, and the factor to their unit
_SCORES = {
    "fid": ("FID", 1),
    "kid": ("KID × 1000", 1000),
    "precision": ("Precision", 1),
    "recall": ("Recall", 1),
    "rfid": ("rFID of the codec", 1),
    "copies": ("Copies of training images (%)", 100),
}


@dataclass(frozen=True)
class Figure:
    """A measured number of a metric with its unit, `PSNR (dB)`, on some data, by a command."""

    metric: str
    value: float
    data: str = ""
    command: str = ""


@dataclass(frozen=True)
class About:
    """Where a model comes from; None or nothing where it is not known."""

    license: str | None = None  # of the weights, as the Hub writes it: `apache-2.0`, `cc0-1.0`, …
    data: str | None = None  # what the model has seen
    terms: str | None = None  # under which terms that data came
    command: str | None = None  # what made the model
    # whose weights training started from, if it ships or is on the Hub
    base_model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # of its training
    steps: int | None = None  # of training
    figures: Sequence[Figure] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)  # options of `sample` that suit it

    @classmethod
    def read(cls, values: object) -> "About":
        """Take over a JSON object; raise InputError on another key or type."""
        facts = _check(values, _FACTS, "facts of a model")
        _check(facts.get("sampling", {}), _SAMPLING, "options of sampling")
        return cls(**facts | {"figures": _read_figures(facts.get("figures", []))})

    def written(self) -> dict[str, Any]:
        """What is known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), {})}


def about_module(module: "nn.Module") -> About:
    """What a module was loaded with."""
    about = getattr(module, "about", None)
    return about if isinstance(about, About) else About()


def read_figures_file(path: Path) -> tuple[Figure, ...]:
    """Read a JSON list of `{"metric", "value", "data", "command"}`, or a `scores.json`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _read_figures(_of_scores(values) if isinstance(values, dict) else values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no JSON of figures or scores: {error!r:.300}") from error


def _read_figures(values: list[Any]) -> tuple[Figure, ...]:
    for value in values:
        figure = _check(value, _FIGURE, "each figure")
        if not figure.get("metric", "").strip() or not math.isfinite(figure.get("value", math.nan)):
            raise InputError(f"Expected a metric and a finite value, got the figure {value!r:.80}.")
    return tuple(Figure(**value) for value in values)


def _of_scores(scores: dict[str, Any]) -> list[dict[str, Any]]:
    options = " ".join(f"{k} {v}" for k, v in scores["options"].items() if v is not None)
    data = (
        f"{scores['num_images']} samples ({options}) against {scores['reference_images']}"
        f" {scores['reference']}"
    )
    return [
        asdict(Figure(metric, factor * scores[name], data, "lightning test"))
        for name, (metric, factor) in _SCORES.items()
        if scores.get(name) is not None
    ]


def _check(values: object, types: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The values, which have these names and types at most."""
    if not isinstance(values, dict) or not all(
        isinstance(value, types.get(name, ())) and not isinstance(value, bool)
        for name, value in values.items()
    ):
        kinds = ", ".join(f"{name} ({getattr(t, '__name__', t)})" for name, t in types.items())
        raise InputError(f"Expected {what} as {kinds}, got {values!r:.200}.")
    return values
