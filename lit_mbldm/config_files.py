"""Configs that start from others: a `base` key with paths relative to the config's folder."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from lit_mbldm.errors import InputError

_OPTIONS = ("--config", "-c")


def expand_bases(argv: list[str]) -> list[str]:
    """Replace each config that has a `base` by its bases and itself, as several --config.

    Lightning merges those key by key, the later ones winning: a new class_path keeps the arguments
    that the new class takes, and a list is replaced unless its key ends in `+`, which appends.
    jsonargparse's own `config` key would do, but for blocks: they replace inherited blocks whole.

    Args:
        argv: a verb and its arguments.

    Raises:
        InputError: a base that is missing, no path, or starts from the config itself.
    """
    expanded: list[str] = []
    for i, argument in enumerate(argv):
        option, separator, value = argument.partition("=")
        if i and argv[i - 1] in _OPTIONS:
            option, value = argv[i - 1], argument
            expanded.pop()
        elif not (option in _OPTIONS and separator):
            expanded.append(argument)
            continue
        for layer in _layers(value):
            expanded += [option, layer]
    return expanded


def _layers(config: str, children: tuple[Path, ...] = ()) -> list[str]:
    """What to give as --config, bases first: the path itself, or the text of a file with bases."""
    keys = _read(config)
    if "base" not in keys:
        return [config]
    path = Path(config).resolve()
    if path in children:
        raise InputError(f"{config} starts from itself. Remove one `base` of the circle.")
    bases = keys.pop("base")
    if not bases:
        raise InputError(f"{config} has an empty `base`. Name a config, or leave the key out.")
    layers = []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not os.path.isfile(path.parent / base):
            raise InputError(
                f"{config} starts from {base!r}, which does not exist. Expected the path of a"
                f" config, relative to {path.parent}."
            )
        layers += _layers(str(path.parent / base), (*children, path))
    return [*layers, json.dumps(keys)]


def _read(config: str) -> dict[str, Any]:
    """A file's keys; none for what is no file of keys, which jsonargparse then explains."""
    if not os.path.isfile(config):
        return {}
    try:
        keys = get_loader("yaml")(Path(config).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is no YAML: {error}") from error
    return keys if isinstance(keys, dict) else {}
