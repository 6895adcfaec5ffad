"""Labels of samples in shards, by WebDataset's convention, and the names of their classes.

A sample's label is a class number from 0 on: in its `.cls` member as text, or in its `.json` member
alone or as `{"label": 3}`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from lit_mbldm.data.shards.tar import Member, read_json, read_member
from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import folder_of, in_folder, open_binary, public

Classes = tuple[str, ...] | None  # names of labels 0, 1, …; None where nothing is labelled
CLASS_NAMES = "classes.txt"  # beside shards without a manifest, a name a line
MAX_CLASSES = 1 << 20
MAX_LABEL_BYTES = 1 << 20


def read_label(stream: BinaryIO, member: Member) -> int | None:
    """The label that a `.cls` or `.json` holds, at which the stream stands; None in other JSON.

    Raises InputError for a `.cls` that holds no class number.
    """
    if member.size > MAX_LABEL_BYTES:
        return None
    data = read_member(stream, member)
    label: object
    if Path(member.name).suffix.lower() == ".cls":
        label = int(data) if data.strip().isdigit() and len(data) < 10 else -1
    else:
        try:
            found = read_json(io.BytesIO(data))
        except ValueError:
            return None
        label = found.get("label") if isinstance(found, dict) else found
    if type(label) is not int:
        return None
    if not 0 <= label < MAX_CLASSES:
        raise InputError(
            f"Expected a class number from 0 to {MAX_CLASSES - 1} in {member.name}, got"
            f" {data!r:.40}."
        )
    return label


def checked_label(label: int | None, classes: Sequence[str], name: str) -> int:
    """The label of the sample `name`; raises InputError where it is missing or of no class."""
    if label is None or label >= len(classes):
        got = "none" if label is None else str(label)
        raise InputError(
            f"Expected a label from 0 to {len(classes) - 1} for {name}, as for the other samples,"
            f" got {got}. Write the shards again, or name all classes in {CLASS_NAMES}."
        )
    return label


def class_names(shard: str, last: int) -> tuple[str, ...]:
    """Names of a shard's classes 0 to `last`: lines of `classes.txt` beside it, else numbers.

    Raises InputError where the lines are too few.
    """
    url = in_folder(folder_of(shard), CLASS_NAMES)
    try:
        with open_binary(url) as stream:
            names = tuple(stream.read().decode(errors="replace").splitlines())
    except (FileNotFoundError, PermissionError):  # a store may deny what does not exist
        return tuple(map(str, range(last + 1)))
    if len(names) <= last:
        raise InputError(
            f"{public(url)} names {len(names)} classes, but {public(shard)} holds the label {last}."
            " Give it a line for each class from 0 on."
        )
    return names


def common_classes(found: Mapping[str, Classes]) -> Classes:
    """The classes of all places, each of which may lack the last of them; raises InputError."""
    name, classes = max(found.items(), key=lambda item: len(item[1] or ()), default=("", None))
    for other, own in found.items():
        if own is not None and classes is not None and classes[: len(own)] == own:
            continue
        if own != classes:
            raise InputError(
                f"Expected the same classes everywhere, but {name} holds {_described(classes)} and"
                f" {other} {_described(own)}. Write the shards from folders of the same names."
            )
    return classes


def _described(classes: Classes) -> str:
    if classes is None:
        return "no labels"
    more = ", …" if len(classes) > 3 else ""
    return f"labels of {len(classes)} classes ({', '.join(classes[:3])}{more})"
