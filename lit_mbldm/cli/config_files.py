"""Configs: those that ship, found by name, and those that start from others by a `base` key."""

import json
import os
import re
from pathlib import Path

from lit_mbldm.errors import InputError

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
    """Find a config given as a path or by its name. A text that holds keys is returned as it is."""
    if os.path.exists(config) or re.search(r"[:{\n]", config):
        return config
    name = config.removeprefix("configs/").removesuffix(".yaml")
    shipped = shipped_configs()
    if name not in shipped:
        names = ", ".join(shipped)
        raise InputError(f"There is no config {config}. Expected a file or one of {names}.")
    return str(shipped[name])


def expand_bases(argv: list[str]) -> list[str]:
    """Find each config of a command, and replace one that has a `base` by its bases and itself.

    Lightning merges several --config key by key, the later ones winning: a new class_path keeps the
    arguments that the new class takes. jsonargparse's own `config` key replaces blocks whole.
    """
    expanded: list[str] = []
    words = iter(argv)
    for word in words:
        option, given, config = word.partition("=")
        if option not in ("--config", "-c"):
            expanded.append(word)
        elif config := config if given else next(words, ""):
            for layer in _layers(find_config(config)):
                expanded += [option, layer]
        else:
            expanded.append(option)
    return expanded


def _layers(config: str, children: tuple[Path, ...] = ()) -> list[str]:
    """What to give as --config, bases first: the path itself, or the text of a file with bases."""
    import yaml
    from jsonargparse import get_loader

    path = Path(config).resolve()
    if path in children:
        raise InputError(f"{config} starts from itself. Remove one `base` of the circle.")
    try:
        text = path.read_text(encoding="utf-8") if os.path.isfile(config) else ""
        keys = get_loader("yaml")(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is no YAML: {error}") from error
    if not isinstance(keys, dict) or "base" not in keys:
        return [config]
    bases, layers = keys.pop("base"), []
    for base in bases if isinstance(bases, list) else [bases]:
        if not os.path.isfile(found := os.path.join(path.parent, str(base))):
            raise InputError(f"{config} starts from {found}, which does not exist.")
        layers += _layers(found, (*children, path))
    return [*layers, json.dumps(keys)]
