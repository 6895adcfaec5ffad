"""Types of arguments that several verbs take."""

import argparse
import math
from typing import TypeAlias

_DIGITS = 18  # of what fits into 64 bits

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return number


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    fits = text.isdecimal() and len(text) <= _DIGITS and least <= int(text)
    if not fits:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {least}, of at most {_DIGITS} digits, got {text!r:.40}"
        )
    return int(text)
