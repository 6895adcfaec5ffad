"""Declaring verbs and their arguments, and the arguments that several verbs take."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Argument: TypeAlias = tuple[str, dict[str, Any]]


def add_verb(
    verbs: Verbs, run: Callable[[argparse.Namespace], None], *given: Argument
) -> argparse.ArgumentParser:
    """Add a function as a verb, or an action of one: its name, its help and what runs."""
    text = (run.__doc__ or "").rstrip(".")
    parser = verbs.add_parser(
        run.__name__, help=text[:1].lower() + text[1:], description=run.__doc__
    )
    for name, settings in given:
        parser.add_argument(name, **settings)
    parser.set_defaults(run=run)
    return parser


def arg(name: str, help: str, **settings: Any) -> Argument:
    """An argument, with its default in the help where it says none."""
    if settings.get("default") is not None and "(default" not in help:
        help += " (default: %(default)s)"
    return name, {"help": help, **settings}


def _between(
    kind: type[int | float], name: str, least: int, most: float = math.inf
) -> Callable[[str], Any]:
    def read(text: str) -> int | float:
        try:
            if least <= (number := kind(text)) <= most:
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {name}, got {text!r:.40}")

    return read


def size(text: str) -> tuple[int, int]:
    """(height, width) of HEIGHTxWIDTH, or of the side of a square."""
    sides = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text, re.ASCII)
    found = (int(sides[1]), int(sides[2] or sides[1])) if sides else (0, 0)
    if min(found) < 1:
        expected = "HEIGHTxWIDTH in pixels such as 128x192, or a side"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r:.40}")
    return found


positive = _between(int, "a whole number from 1", 1)
natural = _between(int, "a whole number from 0", 0)
scale = _between(float, "a scale from 1 to 64", 1, 64)
fraction = _between(float, "a number from 0 to 1", 0, 1)

MODEL = arg("model", "checkpoint, folder of a run or entry, name or org/repo", metavar="MODEL")
IMAGES = arg("images", "folder of images, zip, or tar shards", metavar="IMAGES")
OUT = arg("out", "folder to write", metavar="OUT", type=Path)
DEVICE = arg("--device", "cpu, cuda or mps", default="cpu")
MAX_IMAGES = arg("--max-images", "images taken at random", type=positive, default=1000)
