"""Configs: those that ship, found by name, and those that start from others by a `base` key."""

import json
import os
import re
from pathlib import Path
from typing import Any

from lit_mbldm.errors import InputError

_OPTIONS = ("--config", "-c")
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_configs() -> dict[str, Path]:
    """The configs that ship, by name: in the package, or beside it in a checkout."""
    folder = next(f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def own_configs() -> dict[int, str]:
    """The names of the configs for own images, by the size of the images."""
    sizes = {name: name.removeprefix("own") for name in shipped_configs()}
    return dict(sorted((int(size), name) for name, size in sizes.items() if size.isdecimal()))


def find_config(config: str) -> str:
    """The path of a config given as a path or by its name; what is a text of keys stays as it is.

    Raises:
        InputError: neither a file nor the name of a config that ships.
    """
    if os.path.exists(config) or re.search(r"[:{\n]", config):
        return config
    name = config.removeprefix("configs/").removesuffix(".yaml")
    shipped = shipped_configs()
    if name not in shipped:
        raise InputError(
            f"There is no config {config}. Expected a file or one of {', '.join(shipped)}."
        )
    return str(shipped[name])


def expand_bases(argv: list[str]) -> list[str]:
    """Find each config, and replace one that has a `base` by its bases and itself.

    Lightning merges several --config key by key, the later ones winning: a new class_path keeps the
    arguments that the new class takes, and a list is replaced unless its key ends in `+`, which
    appends. jsonargparse's own `config` key would do, but it replaces inherited blocks whole.

    Args:
        argv: a verb and its arguments.

    Raises:
        InputError: a config that is missing, or a base that is missing, no path, or starts from
            the config itself.
    """
    given = tuple(f"{option}=" for option in _OPTIONS)
    words = [w for word in argv for w in (word.split("=", 1) if word.startswith(given) else [word])]
    expanded: list[str] = []
    for option, word in zip(["", *words], words, strict=False):
        if option in _OPTIONS:
            expanded.pop()
            expanded += [w for layer in _layers(find_config(word)) for w in (option, layer)]
        else:
            expanded.append(word)
    return expanded


def _layers(config: str, children: tuple[Path, ...] = ()) -> list[str]:
    """What to give as --config, bases first: the path itself, or the text of a file with bases."""
    keys = _read(config)
    if "base" not in keys:
        return [config]
    path = Path(config).resolve()
    if path in children:
        raise InputError(f"{config} starts from itself. Remove one `base` of the circle.")
    bases, layers = keys.pop("base"), []
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
    import yaml
    from jsonargparse import get_loader

    if not os.path.isfile(config):
        return {}
    try:
        keys = get_loader("yaml")(Path(config).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is no YAML: {error}") from error
    return keys if isinstance(keys, dict) else {}
