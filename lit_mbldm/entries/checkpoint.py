"""A model out of a training checkpoint on this machine."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from lit_mbldm.entries.about import About
from lit_mbldm.entries.tree import assemble
from lit_mbldm.errors import InputError

# The key of a checkpoint under which LightningModules keep their class_path tree.
CHECKPOINT_KEY = "lit_mbldm"


def load_checkpoint(path: Path) -> nn.Module:
    """Load the model of a checkpoint, in eval mode; the averaged weights where it has them."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        kept = checkpoint[CHECKPOINT_KEY]
        # the command that older checkpoints kept may hold secrets
        facts = {
            name: kept[name] for name in ("config", "sampling", "base_model") if kept.get(name)
        }
        about = About.read({**facts, "steps": checkpoint["global_step"]})
        return assemble(kept["model"], checkpoint["state_dict"], about)
    except Exception as error:  # torch.load raises nearly anything on a file it cannot read
        reason = f"{error if isinstance(error, InputError) else repr(error)!s:.400}"
        if isinstance(error, UnpicklingError):  # torch tells how to run what the file holds
            reason = "it may hold objects that run code, which are never loaded."
        raise InputError(
            f"{path} is no checkpoint of lit_mbldm, or is damaged: {reason} Expected what"
            " `lightning fit` writes, or an entry's folder."
        ) from error
