"""Weights into modules, strictly: the same names, shapes and dtypes."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.errors import InputError
from lit_mbldm.zoo.about import About
from lit_mbldm.zoo.tree import build

_SHOWN = 3


def assemble(tree: Mapping[str, Any], weights: Mapping[str, Tensor], about: About) -> nn.Module:
    """Build a tree's module around these tensors, which it then owns, in eval mode.

    Args:
        tree: of `describe`.
        weights: every parameter and persistent buffer of the module.
        about: what people want to know, kept as the module's attribute `about`.

    Raises:
        InputError: as `build_for`.
    """
    module = build_for(tree, weights)
    module.load_state_dict(weights, assign=True)
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    vars(module)["about"] = about
    return module.eval()


def build_for(tree: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a tree's module, still without memory, which these tensors fit.

    Raises:
        InputError: a tree that builds nothing, or a missing, unknown or misshapen tensor.
    """
    module = build(tree, len(weights))
    _check(module.state_dict(), weights)
    return module


def fingerprint_of(module: nn.Module) -> str:
    """Fingerprint of a codec, or of a model's codec.

    Raises:
        InputError: it is neither.
    """
    fingerprint = getattr(getattr(module, "codec", module), "fingerprint", None)
    if not isinstance(fingerprint, str):
        raise InputError(f"A {type(module).__name__} is neither a codec nor a model with a codec.")
    return fingerprint


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing:
        raise InputError(f"It lacks {_some(missing)}.")
    if unknown:
        raise InputError(f"It holds {_some(unknown)}, which the model has not.")
    other = [name for name in expected if _form(expected[name]) != _form(found[name])]
    if other:
        expectation, instead = _form(expected[other[0]]), _form(found[other[0]])
        raise InputError(f"{_some(other)}: expected {expectation}, got {instead}.")


def _form(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    return tensor.dtype, tuple(tensor.shape)


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name:.80}" for name in sorted(names)[:_SHOWN]) + more
