"""How often fit saves and draws, as settings of their own beside the list of callbacks."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mbldm.errors import InputError
from lit_mbldm.training.callbacks.pictures import SampleImages
from lit_mbldm.training.resume.last_checkpoint import last_keeper

# keys of a config, with their help
INTERVALS = {
    "checkpoint_every": "Steps from one last.ckpt to the next, in place of what callbacks say.",
    "sample_every": "Steps from one grid of samples to the next, in place of each validation.",
}


def set_intervals(
    trainer: L.Trainer, checkpoint_every: int | None, sample_every: int | None
) -> None:
    """Set how often callbacks act; None leaves it to their own settings.

    Args:
        trainer: of the run, before it starts.
        checkpoint_every: steps, of the ModelCheckpoint that writes last.ckpt, which must not
            wait for a monitored value.
        sample_every: steps, of SampleImages.

    Raises:
        InputError: there is no such callback.
    """
    if checkpoint_every is not None:
        keeper = last_keeper(trainer) or trainer.checkpoint_callback
        if not isinstance(keeper, ModelCheckpoint) or keeper.monitor is not None:
            raise _missing("checkpoint_every", "ModelCheckpoint without monitor")
        keeper._every_n_train_steps = checkpoint_every
        keeper._every_n_epochs, keeper._train_time_interval = 0, None
    if sample_every is not None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        drawing = [one for one in callbacks if isinstance(one, SampleImages)]
        if not drawing:
            raise _missing("sample_every", "SampleImages")
        for one in drawing:
            one.every_n_steps = sample_every


def _missing(key: str, callback: str) -> InputError:
    return InputError(f"{key} needs a {callback} in trainer.callbacks, and there is none.")
