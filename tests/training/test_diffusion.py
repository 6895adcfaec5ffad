from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image

from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    SampleImages,
    SampleOptions,
)
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained


def small(kind: str) -> DiffusionModule:
    torch.manual_seed(0)
    if kind == "continuous":
        return ContinuousDiffusion(
            "opq-32-8-8", UNet(6, 6, 16, (1, 2), 1), GaussianProcess(), 32, warmup_steps=2
        )
    return CategoricalDiffusion(
        "opq-32-8-8",
        UNet(6, 1536, 16, (1, 2), 1),
        CategoricalProcess(cross_entropy_weight=0.1),
        32,
    )


@pytest.fixture(params=["continuous", "categorical"])
def model(request: pytest.FixtureRequest) -> DiffusionModule:
    model = small(request.param)
    for parameter in model.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_a_seed_gives_the_same_images_at_any_batch_size(model: DiffusionModule) -> None:
    whole = model.sample(5, steps=4, seed=3, batch_size=5)
    assert whole.shape == (5, 3, 32, 32)
    assert whole.dtype == torch.uint8
    for batch_size in (1, 2, 16):
        assert torch.equal(model.sample(5, steps=4, seed=3, batch_size=batch_size), whole)
    assert not torch.equal(model.sample(5, steps=4, seed=4), whole)
    assert torch.equal(model.sample(2, steps=4, seed=3), whole[:2])


def test_sampling_leaves_the_model_as_it_was(model: DiffusionModule) -> None:
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.sample(1, steps=2)
    assert model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())


def fit(model: DiffusionModule, folder: Path, **options: object) -> L.Trainer:
    L.seed_everything(0)
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            SampleImages(num_images=4, options=SampleOptions(steps=2)),
            EMAWeightAveraging(decay=0.5, use_buffers=False),
            ModelCheckpoint(folder / "checkpoints", save_last=True),
        ],
        **options,  # type: ignore[arg-type]
    )
    trainer.fit(model, CropDataModule(crop_size=32, batch_size=4, crops_per_epoch=16))
    return trainer


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_fit_ends_with_a_checkpoint_samples_and_the_command(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small(kind)
    before = model.codec.fingerprint
    fit(model, tmp_path, max_epochs=2)
    assert model.codec.fingerprint == before
    printed = capsys.readouterr().out
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    assert f"lit-mbldm sample {checkpoint}" in printed
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width > 2 * picture.height
    assert len(list((tmp_path / "samples").iterdir())) == 2
    loaded = load_pretrained(checkpoint)
    assert torch.equal(loaded.sample(2, steps=3), model.sample(2, steps=3))


def test_the_checkpoint_s_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    fit(small("continuous"), tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert not torch.equal(averaged["denoiser.stem.weight"], current["denoiser.stem.weight"])
    loaded = load_pretrained(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(
        loaded.state_dict()["denoiser.stem.weight"], averaged["denoiser.stem.weight"]
    )


def test_training_lowers_the_loss_on_one_image() -> None:
    model = small("categorical")
    image = torch.randint(0, 256, (1, 3, 32, 32)).byte()
    codes = model.codec.encode(image).expand(16, -1, -1, -1)
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 3e-3)
    with torch.no_grad():
        before = model.loss({"codes": codes}, (1,), LossByTime())
    for step in range(60):
        loss = model.loss({"codes": codes}, (0, step), LossByTime())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert model.loss({"codes": codes}, (1,), LossByTime()) < 0.7 * before


def test_codes_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="image_size 32"):
        small("continuous").loss(
            {"codes": torch.zeros(1, 6, 8, 8, dtype=torch.uint8)}, (0,), LossByTime()
        )


def test_a_checkpoint_of_another_codec_is_refused() -> None:
    model = small("continuous")
    checkpoint: dict[str, object] = {}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    model.codec.get_buffer("channels.1.codewords")[0, 0, 0] += 1
    with pytest.raises(InputError, match="another codec"):
        model.on_load_checkpoint(checkpoint)
