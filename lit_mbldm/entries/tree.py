"""The class_path tree: one grammar for the command line's configs and the zoo's `config.json`."""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.about import About
from lit_mbldm.errors import InputError

Tree = dict[str, Any]
# What models are made of: other rooms have classes that read files and the network.
_CLASS_PATH = re.compile(r"(lit_mbldm\.(?:codecs|denoisers|processes|training))\.([A-Z]\w*)")
GONE = {"allow_residual"}  # arguments that entries hold, and nothing takes any more
_MAX_TENSORS = 10_000
_MAX_NUMBERS = 1 << 20
_WEIGHTS = {torch.empty, torch.zeros, torch.eye}
_TABLES = {torch.arange, torch.linspace, torch.ones, torch.full}


def describe(module: nn.Module) -> Tree:
    """Write down how to build a module, which keeps its arguments as attributes of their names."""
    cls = type(module)
    room = ".".join(cls.__module__.split(".")[:2])
    public = getattr(sys.modules.get(room), cls.__name__, None) is cls
    init_args = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        init_args[name] = _written(getattr(module, name))
    return {
        "class_path": f"{room if public else cls.__module__}.{cls.__name__}",
        "init_args": init_args,
    }


def _written(value: Any) -> Any:
    if isinstance(value, nn.ModuleList | list):
        return [_written(part) for part in value]
    if isinstance(value, tuple):
        return tuple(_written(part) for part in value)
    return describe(value) if isinstance(value, nn.Module) else value


def assemble(tree: Tree, weights: Mapping[str, Tensor], about: About) -> nn.Module:
    """Build a module of exactly these tensors, in eval mode, and attach `about`.

    Numbers may be in float16, in which entries keep those of networks where that loses nothing.
    """
    module = build(tree)
    state, networks = module.state_dict(), {name for name, _ in network_tensors(module)}
    weights = {
        name: v.float() if v.dtype == torch.float16 and name in networks else v
        for name, v in weights.items()
    }
    for name in sorted(state.keys() | weights.keys(), key=str):
        expected, found = (
            (tensors[name].dtype, tuple(tensors[name].shape)) if name in tensors else "none"
            for tensors in (state, weights)
        )
        if expected != found:
            raise InputError(f"The weight {name!s:.80}: expected {expected}, got {found}.")
    module.load_state_dict(weights, assign=True)
    vars(module)["about"] = about
    return module.eval()


def network_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What was learned by gradients, by name: parameters, and the weights of codecs' networks."""
    yield from module.named_parameters()
    for name, part in module.named_modules():
        network = getattr(part, "network", None)
        if isinstance(part, ImageCodec) and isinstance(network, nn.Module):
            prefix = f"{name}.network" if name else "network"
            yield from network.named_buffers(prefix)


def build(tree: Mapping[str, Any]) -> nn.Module:
    """Build the module that `describe` wrote down, with its weights on the device `meta`.

    Only classes that lit_mbldm's codecs, denoisers, processes and training export are called, and
    none of them runs code that the tree holds. InputError on others, and on unfit arguments.
    """
    with _Hollow():
        return _build(tree)


def _build(tree: Mapping[str, Any]) -> nn.Module:
    path = tree.get("class_path")
    cls = find_class(path)
    init_args = tree.get("init_args", {})
    if not isinstance(init_args, Mapping):
        raise InputError(f"Expected the init_args of {path} by name, got {init_args!r:.80}.")
    built = {
        name: [_built(part) for part in value] if isinstance(value, list) else _built(value)
        for name, value in init_args.items()
        if name not in GONE
    }
    try:
        if isinstance(built.get("codec"), str):  # which would be read from the disk or the Hub
            raise TypeError(f"it must hold its codec, not the name {built['codec']!r:.80}")
        return cls(**built)
    except Exception as error:  # constructors do not expect what a damaged tree holds
        reason = str(error).partition("\n")[0]  # torch adds traces of its own
        raise InputError(
            f"{path} cannot be built from these init_args: {type(error).__name__}: {reason:.300}."
        ) from error


def _built(value: Any) -> Any:
    return _build(value) if isinstance(value, Mapping) else value


def find_class(path: object) -> type[nn.Module]:
    """The class of a codec, denoiser, process or model; InputError on another path."""
    match = _CLASS_PATH.fullmatch(path) if isinstance(path, str) else None
    cls = getattr(importlib.import_module(match[1]), match[2], None) if match else None
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(
            "Only classes inside lit_mbldm are loaded that this version's codecs, denoisers,"
            f" processes or training export; got class_path {path!r:.80}."
        )
    return cls


class _Hollow(TorchFunctionMode):
    """Sends what modules allocate for their weights to the device `meta`.

    A number in a damaged tree is often huge: many tensors and large tables are errors.
    """

    num_tensors = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        hollow = {**(kwargs or {}), "device": "meta"}
        if func in _WEIGHTS:
            self.num_tensors += 1
            if self.num_tensors > _MAX_TENSORS:
                raise InputError(f"The model has more than {_MAX_TENSORS:,} tensors.")
            if func is torch.eye:  # whose kernel for meta takes a second to import
                func, args = torch.empty, (args[0], args[-1])
            return func(*args, **hollow)
        if func in _TABLES and func(*args, **hollow).numel() > _MAX_NUMBERS:
            raise InputError(f"A table of the model has more than {_MAX_NUMBERS:,} numbers.")
        return func(*args, **(kwargs or {}))
