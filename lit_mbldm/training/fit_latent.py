"""What a run does about its latent: a new one scales it to its data, a resumed one compares it."""

from itertools import islice
from typing import Any

import lightning as L
import torch
from tqdm import tqdm

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.tree import Tree, describe
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import is_first, sum_ranks

_IMAGES = 2**12  # of each process at most


def is_new_run(trainer: L.Trainer | None) -> bool:
    """Whether a trainer begins to train, and not from a checkpoint."""
    return trainer is not None and trainer.state.fn == "fit" and not trainer.ckpt_path


def fit_new_latent(latent: Latent, trainer: L.Trainer | None) -> None:
    """Fit a latent that is scaled to no data yet, at the start of a new run.

    That is to the training data of the trainer's data module, of all processes together. Raises
    InputError for no data module.
    """
    if trainer is None or latent.fitted or not is_new_run(trainer):
        return
    data: Any = getattr(trainer, "datamodule", None)
    if data is None:
        raise InputError(
            f"A {type(latent).__name__} is scaled to the data of a data module: call"
            " trainer.fit(model, datamodule=...), or latent.fit before."
        )
    with torch.device("cpu"):  # where model and batches still are
        loader = data.train_dataloader()
        count = min(len(loader), max(1, _IMAGES // data.batch_size))
        moments: Any = 0
        for batch in tqdm(islice(loader, count), "scaling", count, disable=not is_first()):
            batch = data.on_after_batch_transfer(batch, 0)
            moments = moments + latent.moments(batch["codes"], batch.get("images"))
        latent.fit(sum_ranks(moments, trainer.strategy.root_device))


def check_latent(latent: Latent, trained: Tree | None) -> None:
    """See that numbers mean what they meant to a checkpoint, whose latent was `trained`.

    Raises InputError for another class, or another argument that matters.
    """
    own = describe(latent)
    expected, found = (
        " ".join(
            [tree["class_path"], *(f"{a}: {tree['init_args'].get(a)}" for a in latent.meaning)]
        )
        for tree in (own, trained or own)
    )
    if found != expected:
        raise InputError(
            f"The checkpoint was trained on another latent: {found}, not {expected}. Set"
            " model.latent to the checkpoint's."
        )
