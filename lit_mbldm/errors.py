"""The one exception that the command line prints without a traceback, and the plainest checks."""

import math
from typing import Any, get_args


class InputError(ValueError):
    """A mistake in what the user gave: says what was expected, what came and what to do."""


def check_numbers(least: float, most: float = math.inf, **numbers: float | None) -> None:
    """Raise InputError for a number outside [least, most], by its name; None is no number."""
    for name, number in numbers.items():
        if number is not None and not least <= number <= most:
            limit = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
            raise InputError(f"Expected {name} {limit}, got {number}.")


def check_positive(**numbers: float) -> None:
    """Raise InputError for a number that is not above 0 and finite, by its name."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise InputError(f"Expected a positive {name}, got {number}.")


def check_choice(choices: Any, **values: object) -> None:
    """Raise InputError for a value that is none of a Literal's, by its name."""
    for name, value in values.items():
        if value not in get_args(choices):
            raise InputError(f"Expected {name} as one of {get_args(choices)}, got {value!r}.")
