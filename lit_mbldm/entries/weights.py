"""Weights into modules, strictly: the same names, shapes and dtypes."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from lit_mbldm.entries.about import About
from lit_mbldm.errors import InputError

_SHOWN = 3


def assemble(module: nn.Module, weights: Mapping[str, Tensor], about: About) -> nn.Module:
    """Give a module these tensors, which it then owns, and put it in eval mode.

    Args:
        module: of `build`, without memory.
        weights: every parameter and persistent buffer of the module.
        about: what people want to know, kept as the module's attribute `about`.

    Raises:
        InputError: as `check_weights`.
    """
    check_weights(module, weights)
    module.load_state_dict(weights, assign=True)
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    vars(module)["about"] = about
    return module.eval()


def fingerprint_of(module: nn.Module) -> str:
    """Fingerprint of a codec, or of a model's codec.

    Raises:
        InputError: it is neither.
    """
    fingerprint = getattr(getattr(module, "codec", module), "fingerprint", None)
    if not isinstance(fingerprint, str):
        raise InputError(f"A {type(module).__name__} is neither a codec nor a model with a codec.")
    return fingerprint


def check_weights(module: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Raise InputError for a tensor that is missing, unknown or misshapen."""
    expected: Mapping[str, Tensor] = module.state_dict()
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
