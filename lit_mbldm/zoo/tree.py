"""The class_path tree: one grammar for the command line's configs and the zoo's `config.json`."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from lit_mbldm.errors import InputError

Tree = dict[str, Any]


def describe(module: nn.Module) -> Tree:
    """Write down how to build a module: `{"class_path": …, "init_args": {…}}`.

    Every argument of the constructor must be kept as an attribute of the same name.
    """
    cls = type(module)
    package = cls.__module__.rpartition(".")[0]
    public = getattr(importlib.import_module(package), cls.__name__, None) is cls
    init_args = {}
    for name in list(inspect.signature(cls.__init__).parameters)[1:]:
        value = getattr(module, name)
        init_args[name] = describe(value) if isinstance(value, nn.Module) else value
    return {
        "class_path": f"{package if public else cls.__module__}.{cls.__name__}",
        "init_args": init_args,
    }


def build(tree: Mapping[str, Any]) -> nn.Module:
    """Build the module that `describe` wrote down.

    Raises:
        InputError: a class path outside `lit_mbldm.` or unknown, or arguments that do not fit.
    """
    path = str(tree.get("class_path"))
    if not path.startswith("lit_mbldm."):
        raise InputError(f"Only classes inside lit_mbldm are loaded, got class_path {path!r}.")
    package, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"This version of lit_mbldm has no class {path!r}.") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"{path!r} is no module class.")
    init_args = {
        key: build(value) if isinstance(value, Mapping) and "class_path" in value else value
        for key, value in tree.get("init_args", {}).items()
    }
    try:
        return cls(**init_args)
    except TypeError as error:
        raise InputError(f"{path} cannot be built from these init_args: {error}.") from error
