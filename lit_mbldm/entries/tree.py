"""The class_path tree: one grammar for the command line's configs and the zoo's `config.json`."""

import importlib
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lit_mbldm.errors import InputError

Tree = dict[str, Any]
# What models are made of: other rooms have classes that read files and the network.
_CLASS_PATH = re.compile(
    r"lit_mbldm\.(codecs|denoisers|processes|training)(\.[a-z]\w*)*\.[A-Z]\w*", re.ASCII
)
_MAX_NUMBERS = 1 << 20
_MAX_LIST = 1000
_MAX_TEXT = 200
_MAX_PARTS = 100
_MAX_MESSAGE = 600
MAX_TENSORS = 5000
_WEIGHTS = {torch.empty, torch.zeros, torch.eye}
_TABLES = {torch.arange, torch.linspace, torch.ones, torch.full}


def describe(module: nn.Module) -> Tree:
    """Write down how to build a module: `{"class_path": …, "init_args": {…}}`.

    Raises:
        InputError: an argument of the constructor that is not kept as an attribute of its name.
    """
    cls = type(module)
    package = cls.__module__.rpartition(".")[0]
    # a module of a user's own need not lie in a package
    public = package and getattr(importlib.import_module(package), cls.__name__, None) is cls
    init_args = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise InputError(
                f"A {cls.__name__} must keep its argument {name} as an attribute of that name, for"
                " checkpoints and entries to tell how it is built."
            )
        value = getattr(module, name)
        init_args[name] = describe(value) if isinstance(value, nn.Module) else value
    return {
        "class_path": f"{package if public else cls.__module__}.{cls.__name__}",
        "init_args": init_args,
    }


def build(tree: Mapping[str, Any], num_tensors: int) -> nn.Module:
    """Build the module that `describe` wrote down, without memory for its weights.

    Parameters and persistent buffers are on the device `meta`; buffers that the constructor
    computes are not. Nothing that a tree says makes this long or large.

    Args:
        tree: of this or another's making.
        num_tensors: that the module has, so that building one of millions ends early.

    Raises:
        InputError: a class path outside `lit_mbldm.` or unknown, or arguments that do not fit.
    """
    try:
        if _count_parts(tree) > _MAX_PARTS:
            raise InputError(f"The model has more than {_MAX_PARTS} parts.")
        if num_tensors > MAX_TENSORS:
            raise InputError(f"Expected at most {MAX_TENSORS:,} tensors, got {num_tensors:,}.")
        with _Hollow(num_tensors):
            return _build(tree)
    except RecursionError as error:
        raise InputError("The model's class_path tree is nested too deeply.") from error


def _build(tree: Mapping[str, Any]) -> nn.Module:
    path = tree.get("class_path")
    cls = find_class(path)
    init_args = tree.get("init_args", {})
    if not isinstance(init_args, Mapping):
        raise InputError(f"Expected the init_args of {path} by name, got {init_args!r:.80}.")
    for name, value in init_args.items():
        if isinstance(value, list | tuple) and len(value) > _MAX_LIST:
            raise InputError(f"{path} takes no list of {len(value)} as {name!r:.80}.")
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            raise InputError(f"{path} takes no text of {len(value)} characters as {name!r:.80}.")
    if isinstance(init_args.get("codec"), str):
        raise InputError(f"{path} must hold its codec, not the name {init_args['codec']!r:.80}.")
    built = {key: _build(value) if _is_part(value) else value for key, value in init_args.items()}
    try:
        return cls(**built)
    except InputError as error:  # which may quote a module where a number was expected
        raise InputError(textwrap.shorten(str(error), _MAX_MESSAGE, placeholder=" …")) from error
    except Exception as error:  # constructors do not expect what a damaged tree holds
        reason = str(error).partition("\n")[0]  # torch adds traces of its own
        raise InputError(
            f"{path} cannot be built from these init_args: {type(error).__name__}: {reason:.300}."
        ) from error


def _is_part(value: object) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


def _count_parts(tree: Mapping[str, Any]) -> int:
    init_args = tree.get("init_args")
    values = init_args.values() if isinstance(init_args, Mapping) else ()
    return 1 + sum(_count_parts(value) for value in values if _is_part(value))


def find_class(path: object) -> type[nn.Module]:
    """The class of a codec, denoiser, process or model.

    Raises:
        InputError: a class path outside `lit_mbldm.` or unknown.
    """
    if not isinstance(path, str) or not _CLASS_PATH.fullmatch(path):
        raise InputError(
            "Only classes inside lit_mbldm are loaded, of its codecs, denoisers, processes and"
            f" training; got class_path {path!r:.80}."
        )
    package, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"This version of lit_mbldm has no class {path!r:.80}.") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module) and _is_own(cls)):
        raise InputError(f"{path!r:.80} is no module class of these rooms.")
    return cls


def _is_own(cls: type) -> bool:
    """Whether the class lies in one of the rooms, and is not merely imported there."""
    return _CLASS_PATH.fullmatch(f"{cls.__module__}.{cls.__qualname__}") is not None


class _Hollow(TorchFunctionMode):
    """Sends what modules allocate for their weights to the device `meta`, and sets limits."""

    def __init__(self, num_tensors: int) -> None:
        super().__init__()
        self._num_tensors = num_tensors
        self._allocated = self._numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _WEIGHTS:
            self._count_weight()
            if func is torch.eye:  # whose kernel for meta takes a second to import
                func, args = torch.empty, (args[0], args[-1])
            return func(*args, **{**kwargs, "device": "meta"})
        if func in _TABLES:
            self._count_numbers(func(*args, **{**kwargs, "device": "meta"}).numel())
        return func(*args, **kwargs)

    def _count_weight(self) -> None:
        self._allocated += 1
        if self._allocated > 2 * self._num_tensors:  # a constructor need not keep all
            raise InputError(
                f"The model has more tensors than the {self._num_tensors} that it may have."
            )

    def _count_numbers(self, count: int) -> None:
        self._numbers += count
        if self._numbers > _MAX_NUMBERS:
            raise InputError(
                f"The model has tables of more than {_MAX_NUMBERS:,} numbers: its init_args are"
                " too large."
            )
