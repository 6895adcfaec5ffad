"""What people want to know of a model besides its weights."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from lit_mbldm.errors import InputError


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        metric: its name and unit, such as `PSNR (dB)`.
        value: the number.
        data: what it was measured on.
        command: what measured it.
    """

    metric: str
    value: float
    data: str = ""
    command: str = ""


@dataclass(frozen=True)
class About:
    """Where a model comes from; None or nothing where it is not known.

    Attributes:
        license: of the weights, as the Hub writes it: `apache-2.0`, `cc0-1.0`, `other`, …
        data: what the model has seen.
        terms: under which terms that data came.
        command: what made the model.
        config: of its training: classes and numbers.
        steps: of training.
        figures: its measured numbers.
        sampling: options of `sample` that suit it, by name.
    """

    license: str | None = None
    data: str | None = None
    terms: str | None = None
    command: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    figures: Sequence[Figure] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, values: object) -> "About":
        """Take over what a JSON object says.

        Raises:
            InputError: another key or type.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"Expected facts of a model by name, got {values!r:.80}.")
        rest = dict(values)
        figures = read_figures(rest.pop("figures", []))
        sampling = _read_sampling(rest.pop("sampling", {}))
        config = _read_tree(rest.pop("config", {}))
        texts = ("license", "data", "terms", "command")
        for name, value in rest.items():
            if not (isinstance(value, str) if name in texts else name == "steps" and _whole(value)):
                raise InputError(
                    f"Expected {', '.join(texts)} as texts, steps as a number and figures, got"
                    f" {name}: {value!r:.80}."
                )
        return cls(**rest, config=config, figures=figures, sampling=sampling)

    def written(self) -> dict[str, Any]:
        """What is known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), {})}


def about_module(module: nn.Module) -> About:
    """What a module was loaded with."""
    about = getattr(module, "about", None)
    return about if isinstance(about, About) else About()


def read_figures(values: object) -> tuple[Figure, ...]:
    """Take over a JSON list of figures.

    Raises:
        InputError: no list of objects with `metric`, `value` and perhaps `data` and `command`.
    """
    if not isinstance(values, list):
        raise InputError(f"Expected a list of figures, got {values!r:.80}.")
    for value in values:
        names = value.keys() if isinstance(value, Mapping) else ()
        fits = {"metric", "value"} <= set(names) <= {"metric", "value", "data", "command"}
        if (
            not fits
            or not str(value["metric"]).strip()
            or not all(
                _finite(text) if name == "value" else isinstance(text, str)
                for name, text in value.items()
            )
        ):
            raise InputError(
                'Expected each figure as {"metric": "PSNR (dB)", "value": 27.3, "data": "…",'
                f' "command": "…"}}, got {value!r:.80}.'
            )
    return tuple(Figure(**value) for value in values)


def _read_sampling(values: object) -> dict[str, Any]:
    checks = {
        "steps": lambda value: _whole(value) and value >= 1,
        "sampler": lambda value: isinstance(value, str),
        "eta": _finite,
        "temperature": _finite,
    }
    if not isinstance(values, Mapping) or not all(
        name in checks and checks[name](value) for name, value in values.items()
    ):
        raise InputError(
            f"Expected options of sampling, {', '.join(checks)}, with a number each or the"
            f" sampler's name, got {values!r:.80}."
        )
    return dict(values)


def _read_tree(values: object) -> dict[str, Any]:
    try:
        tree: object = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Expected a config that fits into JSON: {error!s:.200}.") from error
    if not isinstance(tree, dict):
        raise InputError(f"Expected a config by name, got {values!r:.80}.")
    return tree


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
