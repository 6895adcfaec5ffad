"""Fine-tuning: what a run that starts from a trained model keeps of it, and what cannot start."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from labelled import NAMES, Labelled, make
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lit_mbldm.cli import main
from lit_mbldm.codecs import CoefficientLatent, PatchCodec
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.errors import InputError
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion, DiffusionModule
from lit_mbldm.zoo import load_pretrained


def predictions(model: DiffusionModule, label: int | None) -> Tensor:
    """Of one latent, at three times, with a label."""
    z_t = torch.randn(3, 6, 4, 4, generator=torch.manual_seed(1))
    told = None if label is None else torch.full((3,), label)
    time, none = torch.tensor([0.2, 0.5, 0.9]), torch.zeros_like(z_t)
    with torch.no_grad():
        return model.eval().denoiser(z_t, time, none, told)


def train(
    model: DiffusionModule,
    names: list[str] | None,
    quiet: dict[str, Any],
    folder: Path,
    callbacks: list[L.Callback] | None = None,
) -> Path:
    """A run of one step on data of these classes; its checkpoint."""
    options = {"default_root_dir": folder, "max_steps": 1, **quiet}
    trainer = L.Trainer(callbacks=callbacks, **options)
    trainer.fit(model, Labelled(names))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def started(
    trained: DiffusionModule, names: list[str] | None, quiet: dict[str, Any], folder: Path
) -> DiffusionModule:
    """A model that starts from another one, on data of these classes, and does not learn."""
    model = make(class_names=None, seed=1, learning_rate=0.0)
    model.start_from(trained)
    train(model, names, quiet, folder)
    return model


def test_a_new_model_has_the_labels_that_both_know(quiet: dict[str, Any], tmp_path: Path) -> None:
    trained = make(class_names=NAMES)
    model = started(trained, ["River", "Lake", "Crop"], quiet, tmp_path)
    assert model.class_names == ["River", "Lake", "Crop"]
    for number, before in enumerate([2, -1, 0]):
        assert torch.equal(predictions(model, number), predictions(trained, before))
    assert torch.equal(predictions(model, -1), predictions(trained, -1))
    assert load_pretrained(tmp_path / "last.ckpt").class_names == ["River", "Lake", "Crop"]


@pytest.mark.parametrize(("known", "names"), [(NAMES, None), (None, NAMES), (None, None)])
def test_labels_come_and_go(
    known: list[str] | None, names: list[str] | None, quiet: dict[str, Any], tmp_path: Path
) -> None:
    trained = make(class_names=known)
    model = started(trained, names, quiet, tmp_path)
    for label in (None, *range(len(names or []))):
        torch.testing.assert_close(predictions(model, label), predictions(trained, None))


def test_a_start_that_others_find_is_named(
    quiet: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_entry(make(), tmp_path / "entry")
    monkeypatch.setattr("lit_mbldm.entries.fetch.load_from_hub", lambda *_: make())
    for name, told in [("org/first@v1", "org/first"), (tmp_path / "entry", None)]:
        model = make(seed=1)
        model.start_from(name)
        last = train(model, NAMES, quiet, tmp_path)
        assert load_pretrained(last).about.base_model == told
        resumed = make()
        trainer = L.Trainer(default_root_dir=tmp_path, **{**quiet, "max_steps": 2})
        trainer.fit(resumed, Labelled(NAMES), ckpt_path=last, weights_only=True)
        assert resumed.base_model == told


def test_averages_begin_at_the_trained_weights(quiet: dict[str, Any], tmp_path: Path) -> None:
    trained, model = make(), make(class_names=None, seed=1)
    model.start_from(trained)
    begun = {}

    class Look(EMAWeightAveraging):
        def on_train_start(self, *args: Any) -> None:
            super().on_train_start(*args)
            assert self._average_model is not None
            begun.update(deepcopy(self._average_model.module.state_dict()))

    train(model, NAMES, quiet, tmp_path, [Look(decay=0.9, use_buffers=False)])
    for name, weight in trained.state_dict().items():
        assert torch.equal(begun[name], weight)


def test_the_trained_latent_is_kept(quiet: dict[str, Any], tmp_path: Path) -> None:
    """What the network learned is of its scaling, whatever the new data is."""

    def coefficients() -> DiffusionModule:
        network, process = UNet(None, None, 8, (1,), 1), GaussianProcess()
        return ContinuousDiffusion(
            "opq-32-8-8", network, process, 32, latent=CoefficientLatent(channels=4)
        )

    trained, model = coefficients(), coefficients()
    codes = torch.randint(0, 256, (8, 6, 4, 4)).byte()
    trained.latent.fit(trained.latent.moments(codes))
    model.start_from(trained)
    train(model, None, quiet, tmp_path)
    for name, values in trained.latent.state_dict().items():
        assert torch.equal(model.latent.state_dict()[name], values)


def test_what_cannot_start_is_told(quiet: dict[str, Any], tmp_path: Path) -> None:
    def other(codec: Any = "opq-32-8-8", **options: Any) -> DiffusionModule:
        return ContinuousDiffusion(codec, UNet(None, None, 16, (1,), 1), **options)

    trained = make()
    for model, start, told in [
        (make(), "jpq-48", "Expected a diffusion model to start from, got a JointCodec"),
        (
            other(PatchCodec("OPQ-32-8-8"), process=GaussianProcess(), image_size=32),
            trained,
            "Expected the codec that the model to start from",
        ),
        (
            other(process=GaussianProcess(objective="v"), image_size=32),
            trained,
            "Expected the process of the model",
        ),
    ]:
        with pytest.raises(InputError, match=told):
            model.start_from(start)
    network = UNet(None, None, 24, (1,), 1)
    model = ContinuousDiffusion("opq-32-8-8", network, GaussianProcess(), 32)
    model.start_from(trained)
    with pytest.raises(InputError, match=r"another network.*UNet with .*'base_channels': 16"):
        train(model, None, quiet, tmp_path)


@pytest.mark.slow
def test_the_command_starts_from_an_entry_and_resumes_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_entry(load_pretrained("eurosat-64"), tmp_path / "entry")
    words = ["--config", "own64", "--data.train", "fruits", "--data.batch_size", "2"]
    words += ["--data.num_workers", "0", "--trainer.precision", "32-true", "--data.image_size"]
    words += ["64", "--trainer.limit_val_batches", "0", "--trainer.enable_model_summary", "false"]
    words += ["--trainer.callbacks", "null", "--model.learning_rate", "0"]
    words += ["--checkpoint_every", "1", "--trainer.accelerator", "cpu"]
    main(["fit", *words, "--trainer.max_steps", "1", "--model.from_pretrained", "entry"])
    last = next(tmp_path.glob("runs/**/last.ckpt"))
    trained, model = load_pretrained("eurosat-64"), load_pretrained(last)
    assert model.class_names != trained.class_names
    for name, weight in trained.denoiser.named_parameters():
        if name != "labels.weight":
            assert torch.equal(model.denoiser.get_parameter(name), weight)
    (tmp_path / "entry" / "config.json").unlink()
    config = next(tmp_path.glob("runs/**/resolved_config.yaml"))
    main(["fit", "--config", str(config), "--trainer.max_steps", "2", "--ckpt_path", "last"])
