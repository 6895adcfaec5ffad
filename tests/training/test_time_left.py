from itertools import count

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_mbldm.training.callbacks import time_left


class Shown(L.Callback):
    def __init__(self) -> None:
        self.left: list[str | None] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_) -> None:
        bar = trainer.progress_bar_callback
        self.left.append(bar.get_metrics(trainer, pl_module).get("left"))


def test_the_bar_tells_the_time_left_to_max_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is asked once a batch, and stands 1,000 seconds later each time."""
    monkeypatch.setattr(time_left, "monotonic", count(0, 1000).__next__)
    shown = Shown()
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    bar = L.pytorch.callbacks.TQDMProgressBar(refresh_rate=1000)
    callbacks = [time_left.TimeLeft(), shown, bar]
    trainer = L.Trainer(max_steps=4, callbacks=callbacks, accelerator="cpu", **options)
    trainer.fit(BoringModel())
    assert shown.left == [None, "0:33:20", "0:16:40", "0:00:00"]
