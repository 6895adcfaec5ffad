"""Training of diffusion models in Python: what it leaves, its loss, and parts that do not fit."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image
from torch import Tensor

from lit_mbldm.codecs import BitLatent, CoefficientLatent, DecoderCodec, PatchCodec
from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    Refiner,
    SampleImages,
    SampleOptions,
)
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained

Small = Callable[[str], Any]
KINDS = {"continuous": 6, "categorical": 1536, "bits": 48}  # the networks' outputs
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, "stages"])


def fit(
    model: DiffusionModule, folder: Path, resumed_from: Path | None = None, **options: Any
) -> dict[str, float]:
    """What was logged; the checkpoint is in `last`."""
    L.seed_everything(0)
    callbacks = [
        SampleImages(num_images=4, options=SampleOptions(steps=2)),
        EMAWeightAveraging(decay=0.7, use_buffers=False),
        ModelCheckpoint(folder / "checkpoints", save_last=True),
    ]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    options |= {"default_root_dir": folder, "accelerator": "cpu", **quiet}
    trainer = L.Trainer(callbacks=callbacks, **options)
    data = CropDataModule(crop_size=32, batch_size=4, crops_per_epoch=16)
    trainer.fit(model, data, ckpt_path=resumed_from)
    return {name: float(value) for name, value in trainer.logged_metrics.items()}


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def test_processes_with_different_codecs_are_told(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, compared = small("continuous"), []
    monkeypatch.setattr("lit_mbldm.training.module.all_equal", compared.append)
    with pytest.raises(InputError, match=r"processes have different codecs.*org/repo@commit"):
        fit(model, tmp_path, max_steps=1)
    assert compared == [model.codec.fingerprint]


@pytest.mark.parametrize(
    ("kind", "killed_after"),
    [("continuous", 4), ("categorical", 2), ("bits", 2), ("stages", 2)],
)
def test_a_resumed_run_repeats_one_that_was_not_killed(
    small: Small, kind: str, killed_after: int, tmp_path: Path
) -> None:
    """Averaged and current weights, Adam's moments, the learning rate and means of an epoch."""
    killed, resumed, whole = (tmp_path / name for name in ("killed", "resumed", "whole"))
    fit(small(kind), killed, max_steps=killed_after)
    logged = [fit(small(kind), resumed, last(killed), max_steps=8)]
    logged.append(fit(small(kind), whole, max_steps=8))
    by_time = [{n: v for n, v in one.items() if "train/loss_at" in n} for one in logged]
    assert len(by_time[1]) == 10
    if killed_after == 2:  # in the middle of an epoch
        assert str(by_time[0]) == str(by_time[1])  # some are NaN
    saved = [torch.load(last(run), weights_only=True) for run in (killed, resumed, whole)]
    trained = ["state_dict", "current_model_state", "optimizer_states"]
    equal = partial(torch.testing.assert_close, rtol=0, atol=0)
    for part in [*trained, "averaging_state", "lr_schedulers", "global_step"]:
        equal(saved[1][part], saved[2][part])
    for part in trained:
        with pytest.raises(AssertionError):
            equal(saved[0][part], saved[2][part])


@EVERY_KIND
def test_fit_ends_with_a_checkpoint_of_averaged_weights_samples_and_the_command(
    small: Small, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small(kind)
    before = model.codec.fingerprint
    logged = fit(model, tmp_path, max_epochs=2)
    assert model.codec.fingerprint == before
    assert f"lit-mbldm sample {last(tmp_path)}" in capsys.readouterr().out
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width > 2 * picture.height
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    kinds = ["path", "samples", *(["temperatures"] if model.process.has_temperature else [])]
    steps = sorted({name.rpartition("-")[2] for name in drawn})
    assert len(steps) == 2
    assert drawn == [f"{name}-{step}" for name in kinds for step in steps]
    saved, loaded = torch.load(last(tmp_path), weights_only=True), load_pretrained(last(tmp_path))
    states = saved["state_dict"], loaded.state_dict(), saved["current_model_state"]
    averaged, used, current = (state["denoiser.stem.weight"] for state in states)
    assert torch.equal(used, averaged)
    assert not torch.equal(current, averaged)
    assert torch.equal(loaded.sample(2, steps=3), model.sample(2, steps=3))
    for stage in ("train", "val"):  # losses by time average to the loss
        by_time = [value for name, value in logged.items() if f"{stage}/loss_at/" in name]
        assert len(by_time) == 10
        known = [value for value in by_time if not math.isnan(value)]
        assert len(set(known)) > 1
    assert min(known) < logged["val/loss"] < max(known)


def test_training_lowers_the_loss_on_one_image(small: Small) -> None:
    model = small("categorical")
    image = torch.randint(0, 256, (1, 3, 32, 32)).byte()
    codes = model.codec.encode(image).expand(16, -1, -1, -1)
    batch = {"codes": codes, "index": torch.arange(16)}
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 3e-3)
    with torch.no_grad():
        before = model.loss(batch, (1,), LossByTime())
    for step in range(60):
        loss = model.loss(batch, (0, step), LossByTime())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert model.loss(batch, (1,), LossByTime()) < 0.7 * before


@torch.no_grad()
@EVERY_KIND
def test_a_sample_s_loss_depends_on_its_number_alone(small: Small, kind: str) -> None:
    model = small(kind)
    codes = torch.randint(0, 256, (4, *model.codes_shape), dtype=torch.uint8)

    def loss(*numbers: int, key: int = 5) -> float:
        index = torch.tensor(numbers)
        return model.loss({"codes": codes[index], "index": index}, (key,), LossByTime()).item()

    assert loss(3, 1, 0, 2) == pytest.approx((loss(0, 1) + loss(2, 3)) / 2, rel=1e-5)
    assert loss(0) != pytest.approx(loss(0, key=6), rel=1e-3)


def test_batches_of_another_size_are_refused(small: Small) -> None:
    batch = {"codes": torch.zeros(1, 6, 8, 8, dtype=torch.uint8)}
    with pytest.raises(InputError, match="image_size 32"):
        small("continuous").loss(batch, (0,), LossByTime())


def test_a_checkpoint_or_refiner_of_another_codec_is_refused(small: Small, tmp_path: Path) -> None:
    model, checkpoint = small("continuous"), {}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    save_entry(Refiner("opq-32-8-8", RefinerUNet(8, (1,), 1)), tmp_path / "refiner")
    model.codec.get_buffer("channels.1.codewords")[0, 0, 0] += 1
    with pytest.raises(InputError, match="another codec"):
        model.on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match="another codec"):
        model.settle(SampleOptions(refiner=str(tmp_path / "refiner")))


def test_a_checkpoint_of_another_latent_is_refused() -> None:
    """Of bits in another order, or of no bits; the order is told."""

    def model(latent: Any) -> Any:
        return ContinuousDiffusion(
            "opq-32-8-8", UNet(None, None, 8, (1,), 1), GaussianProcess(), 32, latent=latent
        )

    checkpoint: dict[str, Any] = {}
    model(BitLatent("gray")).on_save_checkpoint(checkpoint)
    model(BitLatent("gray")).on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match=r"BitLatent order: gray, not .*BitLatent order: natural"):
        model(BitLatent()).on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match=r"another latent: .*BitLatent.*not .*IndexLatent"):
        model(None).on_load_checkpoint(checkpoint)


def test_a_coefficient_latent_is_what_is_noised_and_what_is_decoded() -> None:
    """A network that knows the coefficients loses nothing, and samples their images."""
    process, latent = GaussianProcess(objective="x0"), CoefficientLatent(192, quantized=True)
    unet = UNet(base_channels=16, channel_multipliers=(1,), blocks_per_level=1)
    model = ContinuousDiffusion("opq-32-8-8", unet, process, 32, latent=latent)
    codes = torch.randint(0, 256, (1, 6, 4, 4), dtype=torch.uint8)
    latent.fit(latent.moments(codes))
    z0 = latent.to_latent(codes)

    class Knows(torch.nn.Module):
        def forward(self, z_t: Tensor, *rest: Tensor) -> Tensor:
            return z0.expand_as(z_t)

    model.denoiser = Knows()
    batch = {"codes": codes.expand(3, -1, -1, -1), "index": torch.arange(3)}
    assert float(model.loss(batch, (0, 0, 0), LossByTime())) == pytest.approx(0, abs=1e-10)
    assert torch.equal(model.sample(1, steps=3), model.codec.decode(codes))


def test_parts_of_a_model_of_coefficients_are_told() -> None:
    parts: Any = "opq-32-8-8", UNet(6, 6, 16, (1,), 1)
    with pytest.raises(InputError, match=r"in_channels: 18, got 6\. Leave in_channels"):
        ContinuousDiffusion(*parts, GaussianProcess(), 32, latent=CoefficientLatent(18))
    with pytest.raises(InputError, match="CategoricalDiffusion needs a IndexLatent"):
        CategoricalDiffusion(*parts, CategoricalProcess(), 32, latent=CoefficientLatent(18))


@pytest.mark.parametrize(
    ("decay", "rates"), [("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.8536, 0.5, 0.1464])]
)
def test_the_learning_rate_decays_over_the_run(decay: Any, rates: list[float]) -> None:
    unet = UNet(base_channels=8, channel_multipliers=(1,), blocks_per_level=1)
    model = ContinuousDiffusion("opq-32-8-8", unet, GaussianProcess(), 32, 2.0, decay=decay)
    model.trainer = L.Trainer(max_steps=4, logger=False, enable_checkpointing=False)
    schedule = model.configure_optimizers()["lr_scheduler"]["scheduler"]
    found = []
    for _ in rates:
        found += schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
    assert found == pytest.approx([2 * rate for rate in rates], abs=1e-4)
    assert schedule.get_last_lr() == [0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_weight_without_gradient_decays_by_adamw_alone(optimizer: Any) -> None:
    unet = UNet(base_channels=8, channel_multipliers=(1,), blocks_per_level=1)
    model = ContinuousDiffusion("opq-32-8-8", unet, GaussianProcess(), 32, 0.1, optimizer=optimizer)
    weight = unet.head.weight
    torch.nn.init.ones_(weight).grad = torch.zeros_like(weight)
    model.configure_optimizers().step()
    assert torch.allclose(weight, torch.full_like(weight, 1 if optimizer == "adam" else 0.999))


def test_a_decay_without_an_end_is_refused() -> None:
    unet = UNet(base_channels=8, channel_multipliers=(1,), blocks_per_level=1)
    model = ContinuousDiffusion("opq-32-8-8", unet, GaussianProcess(), 32, decay="linear")
    model.trainer = L.Trainer(max_epochs=-1, logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match="set max_steps"):
        model.configure_optimizers()


def with_decoder(seed: int) -> DecoderCodec:
    torch.manual_seed(seed)
    return DecoderCodec(load_codec("opq-32-8-8"), RefinerUNet(8, (1,), 1))


def test_a_refiner_belongs_behind_the_decoder_whose_images_it_learned(tmp_path: Path) -> None:
    """Also after a fit, whose averaging of weights must leave the decoder as it was."""
    unet = UNet(6, 6, 16, (1,), 1)
    model = ContinuousDiffusion(with_decoder(0), unet, GaussianProcess(), 32)
    fit(model, tmp_path, max_steps=3)
    trained = load_pretrained(last(tmp_path))
    assert isinstance(trained, DiffusionModule)
    trained.use_refiner(Refiner(with_decoder(0), RefinerUNet(8, (1,), 1)))
    for other in (with_decoder(1), load_codec("opq-32-8-8")):
        with pytest.raises(InputError, match="another codec"):
            trained.use_refiner(Refiner(other, RefinerUNet(8, (1,), 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_channels_follow_from_codec_latent_and_process(small: Small, kind: str) -> None:
    model = small(kind)
    torch.manual_seed(0)
    typed = UNet(model.latent_shape[0], KINDS[kind], 16, (1, 2), 1)
    for name, weight in typed.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], weight)
    assert model.codes_shape == (6, 4, 4)
    four = PatchCodec("PQ-4-2-2", patch_size=2, codebook_size=4)
    narrow = type(model)(four, UNet(None, None, 16, (1,), 1), type(model.process)(), 8)
    outputs = {"continuous": 4, "categorical": 16, "bits": 8}
    assert narrow.denoiser.head.out_channels == outputs[kind]
    if kind == "bits":
        return
    process = type(model.process)(codebook_size=256)
    with pytest.raises(InputError, match="codebook_size 256, the codec 4: leave"):
        type(model)(four, UNet(None, None, 16, (1,), 1), process, 8)
