from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import AnnealGumbelTemperature, CategoricalDiffusion, ContinuousDiffusion


def categorical() -> CategoricalDiffusion:
    torch.manual_seed(0)
    return CategoricalDiffusion("opq-32-8-8", UNet(6, 1536, 8, (1,), 1), CategoricalProcess(), 16)


class Watch(L.Callback):
    """Temperatures that losses were computed with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *batch: object) -> None:
        self.seen.append(module.process.gumbel_temperature)


@pytest.fixture
def fit(quiet: dict[str, Any]) -> Callable[..., list[float]]:
    """Fits a model, saves it in the folder `path` and returns the temperatures that losses had."""

    def run(model: Any, path: Path, resumed_from: Path | None = None, **options: Any) -> Any:
        L.seed_everything(0)
        save = ModelCheckpoint(path, save_last=True)
        callbacks = [AnnealGumbelTemperature(2.0, 0.5, 4), Watch(), save]
        options = {**quiet, "enable_checkpointing": True, "limit_val_batches": 0, **options}
        trainer = L.Trainer(callbacks=callbacks, **options)
        data = CropDataModule(crop_size=16, batch_size=2, crops_per_epoch=8)
        trainer.fit(model, data, ckpt_path=resumed_from)
        return callbacks[1].seen

    return run


def test_a_resumed_fit_anneals_as_one_that_was_not_killed(fit: Any, tmp_path: Path) -> None:
    """By steps, which two batches share where gradients accumulate."""
    whole, resumed = categorical(), categorical()
    seen = fit(whole, tmp_path / "whole", max_steps=6)
    assert seen == pytest.approx([2.0, 2**0.5, 1.0, 2**-0.5, 0.5, 0.5])
    assert fit(categorical(), tmp_path / "killed", max_steps=3) == seen[:3]
    last = tmp_path / "killed" / "last.ckpt"
    assert fit(resumed, tmp_path / "resumed", last, max_steps=6) == seen[3:]
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)
    shared = fit(categorical(), tmp_path / "shared", max_steps=2, accumulate_grad_batches=2)
    assert shared == pytest.approx([2.0, 2.0, 2**0.5, 2**0.5])


def test_a_model_without_a_temperature_is_refused(fit: Any, tmp_path: Path) -> None:
    model = ContinuousDiffusion("opq-32-8-8", UNet(6, 6, 8, (1,), 1), GaussianProcess(), 16)
    with pytest.raises(InputError, match="GaussianProcess has none"):
        fit(model, tmp_path / "none", max_steps=1)


@pytest.mark.parametrize(
    ("start", "end", "steps"), [(0.0, 0.5, 4), (1.0, -0.5, 4), (1.0, 0.5, 0), (float("nan"), 1, 1)]
)
def test_numbers_that_are_not_positive_are_refused(start: float, end: float, steps: int) -> None:
    with pytest.raises(InputError, match="a positive"):
        AnnealGumbelTemperature(start, end, steps)
