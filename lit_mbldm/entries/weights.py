"""Weights into modules, strictly: the same names, shapes and dtypes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_mbldm.entries.about import About
from lit_mbldm.entries.tree import Tree, build
from lit_mbldm.errors import InputError


def assemble(tree: Tree, weights: Mapping[str, Tensor], about: About) -> nn.Module:
    """Build a module of these tensors, which it then owns, in eval mode.

    Args:
        tree: of its class_path.
        weights: every parameter and persistent buffer of the module.
        about: what people want to know, kept as the module's attribute `about`.

    Raises:
        InputError: as `build`, or a tensor too few or too many, of another shape or dtype.
    """
    module = build(tree)
    _check(module.state_dict(), weights)
    module.load_state_dict(weights, assign=True)
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


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys(), key=str):
        if name not in found:
            raise InputError(f"The weights lack {name}.")
        if name not in expected:
            raise InputError(f"The weights hold {name!s:.80}, which the model does not have.")
        form, instead = _form(expected[name]), _form(found[name])
        if form != instead:
            raise InputError(f"{name}: expected {form}, got {instead}.")


def _form(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    return tensor.dtype, tuple(tensor.shape)
