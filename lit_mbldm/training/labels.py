"""Labels of a model's classes: by name or number, and what of guidance they allow."""

import difflib
import itertools
import math
import operator
from collections.abc import Sequence

from lit_mbldm.errors import InputError
from lit_mbldm.training.options import SampleOptions


def label_numbers(
    class_names: Sequence[str], label: int | str | Sequence[int | str] | None
) -> list[int]:
    """Numbers of the classes that samples take in turn; None is all classes.

    Args:
        class_names: C of them.
        label: a name or a number from 0 to C - 1, also as a text, or several.

    Raises:
        InputError: no such class, or a label where there are no classes.
    """
    if label is None:
        return list(range(len(class_names)))
    if not class_names:
        raise InputError(f"The model knows no labels, got label {label!r:.80}: leave it out.")
    several = [label] if isinstance(label, int | str) else label
    return [_number(class_names, one) for one in several]


def _number(class_names: Sequence[str], label: int | str) -> int:
    if label in class_names:
        return class_names.index(str(label))
    last = len(class_names) - 1
    try:
        number = int(label) if isinstance(label, str) else operator.index(label)
    except ValueError:
        number = -1
    if 0 <= number <= last:
        return number
    near = difflib.get_close_matches(str(label), class_names, cutoff=0.4) or class_names[:3]
    raise InputError(
        f"The model has no class {label!r:.80}: expected a number from 0 to {last} or a name, such"
        f" as {', '.join(near)}."
    )


def check_guidance(
    options: SampleOptions, class_names: Sequence[str], label_dropout: float
) -> None:
    """Raise InputError for guidance out of range, or that a model was not trained for."""
    scale, interval = options.guidance, options.guidance_interval
    if scale is None:
        if interval is not None or options.guide is not None:
            raise InputError(
                "A guide and a guidance_interval need a scale: give guidance too, such as 1.5."
            )
        return
    if not 0 <= scale < math.inf:
        raise InputError(f"Expected a guidance scale from 0, got {scale}.")
    if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
        raise InputError(
            "Expected a guidance_interval of t/T as two numbers from 0 to 1, the lesser first, got"
            f" {interval}."
        )
    if scale != 1 and options.guide is None and not (class_names and label_dropout):
        lacks = "label_dropout" if class_names else "labels"
        raise InputError(
            f"The model was trained without {lacks}, so that guidance {scale:g} has nothing to lead"
            " away from: leave it out, or name an earlier checkpoint as guide."
        )


def check_classes(own: Sequence[str], found: Sequence[str], where: str) -> None:
    """Raise InputError unless the classes of data or of a checkpoint are the model's own."""
    if list(own) == list(found):
        return
    if len(found) > len(own):
        differ = f"The model has {len(own)} classes, {where} has {len(found)}"
    else:
        names = itertools.zip_longest(own, found)
        number, (expected, got) = next(
            (number, pair) for number, pair in enumerate(names) if len(set(pair)) > 1
        )
        differ = f"Class {number} of the model is {expected!r:.80}, of {where} {got!r:.80}"
    raise InputError(
        f"{differ}. Take the classes that the model was trained with, or train a new model."
    )
