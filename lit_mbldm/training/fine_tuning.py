"""Fine-tuning: a new run that starts from the weights of a model that was trained before."""

import torch
from torch import Tensor

from lit_mbldm.denoisers.layers import TimeEmbedding
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.training.fit_latent import check_latent
from lit_mbldm.training.settle import SettlingModule

_LABELS = "denoiser.labels.weight"


def check_start(model: SettlingModule, trained: object) -> SettlingModule:
    """See that a model can start from a trained one's weights, and return that.

    Raises:
        InputError: no diffusion model, or one of another codec, latent or process.
    """
    if not isinstance(trained, SettlingModule):
        raise InputError(
            f"Expected a diffusion model to start from, got a {type(trained).__name__}."
        )
    if (found := model.codec.fingerprint) != trained.codec.fingerprint:
        raise InputError(
            "Expected the codec that the model to start from was trained with,"
            f" {trained.codec.quantizer}, fingerprint {trained.codec.fingerprint[:16]}, got"
            f" {model.codec.quantizer}, fingerprint {found[:16]}. Set model.codec to it, and encode"
            " code shards with it."
        )
    expected, got = trained.reading(), model.reading()
    if not isinstance(model.process, type(trained.process)) or expected[1] != got[1]:
        raise InputError(
            f"Expected the process of the model to start from, {expected}, got {got}. Set"
            " model.process alike."
        )
    check_latent(model.latent, describe(trained.latent))
    return trained


def take_over(model: SettlingModule, trained: SettlingModule) -> None:
    """Copy the weights of a trained model, of which `check_start` approved.

    Of the labels it keeps what both know; a new one starts as no label does. A model without labels
    takes what the trained one does without a label.

    Raises:
        InputError: a network of other layers.
    """
    own, found = (  # not of the codec, whose codes are the same, though its decoder may differ
        {name: v for name, v in one.state_dict().items() if not name.startswith("codec.")}
        for one in (model, trained)
    )
    labels, before = own.pop(_LABELS, None), found.pop(_LABELS, None)
    for name in sorted(own.keys() | found.keys()):
        expected, got = (
            tuple(state[name].shape) if name in state else "none" for state in (found, own)
        )
        if expected != got:
            layers = describe(trained.denoiser)
            raise InputError(
                f"The model to start from has another network: its {name} is {expected}, here"
                f" {got}. Set model.denoiser to {layers['class_path']} with {layers['init_args']}."
            )
    model.load_state_dict(found, strict=False)  # all but the labels
    with torch.no_grad():
        if labels is not None:
            labels.copy_(_rows(model.class_names or [], trained.class_names or [], before, labels))
        elif before is not None:
            for module in model.denoiser.modules():
                if isinstance(module, TimeEmbedding):
                    module.add_constant(before[-1])


def _rows(names: list[str], known: list[str], before: Tensor | None, labels: Tensor) -> Tensor:
    """The embedding of these names and of no label, (C + 1, width), like `labels`."""
    if before is None:
        return torch.zeros_like(labels)
    return torch.stack([before[known.index(n) if n in known else -1] for n in [*names, None]])
