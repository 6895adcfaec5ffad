from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lit_mbldm.cli import main
from lit_mbldm.codecs import BitLatent, CoefficientLatent, IndexLatent
from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import ConvAutoencoder, ImplicitAutoencoder, UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import BernoulliProcess, CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    BernoulliDiffusion,
    BinaryAutoencoder,
    CategoricalDiffusion,
    ContinuousDiffusion,
    ScalarAutoencoder,
)
from lit_mbldm.training.autoencoder import Autoencoder, draw_bits, round_to_levels
from lit_mbldm.zoo import load_pretrained


def autoencoder() -> BinaryAutoencoder:
    torch.manual_seed(0)
    return BinaryAutoencoder(ConvAutoencoder(16, 8, 16, (1, 2), 1), learning_rate=3e-3)


def implicit() -> ScalarAutoencoder:
    torch.manual_seed(0)
    network = ImplicitAutoencoder(2, 4, 8, (1, 2), 1, 16, 2)
    return ScalarAutoencoder(network, low_size=16, drawn_size=12, learning_rate=3e-3)


def crops(count: int = 8) -> CropDataModule:
    return CropDataModule(crop_size=32, batch_size=8, crops_per_epoch=count, zoom_out=4)


def test_bits_are_drawn_with_their_probability_and_pass_gradients_on() -> None:
    logits = torch.tensor([-2.0, 0.0, 1.0]).repeat(20_000, 1).requires_grad_()
    bits = draw_bits(logits, torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(bits.abs(), torch.ones_like(bits), atol=1e-6)
    assert torch.allclose((bits > 0).float().mean(0), logits[0].sigmoid(), atol=0.01)
    (3 * bits).sum().backward()
    expected = 6 * logits.sigmoid() * (1 - logits.sigmoid())  # of 3 (2σ - 1)
    assert logits.grad is not None
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_numbers_are_rounded_to_levels_and_pass_gradients_on() -> None:
    numbers = torch.linspace(-1, 1, 1001).requires_grad_()
    rounded = round_to_levels(numbers)
    levels = torch.linspace(-1, 1, 256)
    assert (rounded[:, None] - levels).abs().amin(1).max() < 1e-6
    assert (rounded - numbers).abs().max() < 1.01 / 255
    rounded.sum().backward()
    assert torch.equal(numbers.grad, torch.ones_like(numbers))


def test_a_sample_s_loss_depends_on_its_own_bits() -> None:
    model = autoencoder()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)

    def loss(*numbers: int, key: int = 5) -> float:
        batch = {"images": images[list(numbers)], "index": torch.tensor(numbers)}
        return float(model.loss(batch, (key,)).detach())

    assert loss(0) == loss(0) != loss(0, key=6)
    assert loss(2, 0) == pytest.approx((loss(0) + loss(2)) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "gained", "decibels"), [(autoencoder, 0.2, 3), (implicit, 0.02, 1.5)]
)
def test_training_lowers_the_loss_and_a_checkpoint_is_the_codec(
    make: Callable[[], Autoencoder],
    gained: float,
    decibels: float,
    quiet: dict[str, Any],
    tmp_path: Path,
) -> None:
    model = make()
    before = L.Trainer(**quiet).validate(model, crops(), verbose=False)[0]
    trainer = L.Trainer(**quiet, max_epochs=1, limit_val_batches=0)
    trainer.fit(model, crops(8 * 40))
    after = L.Trainer(**quiet).validate(model, crops(), verbose=False)[0]
    assert after["val/loss"] < before["val/loss"] - gained
    assert after["val/psnr"] > before["val/psnr"] + decibels
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    codec = load_pretrained(tmp_path / "last.ckpt")
    assert type(codec) is type(model.trained())
    assert codec.fingerprint == model.trained().fingerprint
    again = L.Trainer(**quiet, max_epochs=2, limit_val_batches=0)  # and training goes on
    again.fit(make(), crops(8), ckpt_path=tmp_path / "last.ckpt")
    assert again.current_epoch == 2


@pytest.mark.parametrize("kind", ["categorical", "bits", "coefficients"])
def test_models_learn_its_codes(kind: str, quiet: dict[str, Any]) -> None:
    codec, unet = autoencoder().trained(), UNet(None, None, 8, (1,), 1)
    model: Any = {
        "categorical": lambda: CategoricalDiffusion(
            codec, unet, CategoricalProcess(10), 32, latent=IndexLatent()
        ),
        "bits": lambda: BernoulliDiffusion(
            codec, unet, BernoulliProcess(10), 32, latent=BitLatent()
        ),
        "coefficients": lambda: ContinuousDiffusion(
            codec, unet, GaussianProcess(10), 32, latent=CoefficientLatent(6)
        ),
    }[kind]()
    fingerprint = codec.fingerprint
    L.Trainer(**quiet, max_steps=1, limit_val_batches=0).fit(model, crops())
    images: Tensor = model.sample(2, steps=2)
    assert images.shape == (2, 3, 32, 32)
    assert codec.fingerprint == fingerprint


def test_codes_alone_and_images_of_another_size_are_refused() -> None:
    model = autoencoder()
    with pytest.raises(InputError, match="image shards"):
        model.training_step({"codes": torch.zeros(1, 2, 4, 4, dtype=torch.uint8)}, 0)
    batch = {"images": torch.zeros(1, 3, 32, 36, dtype=torch.uint8), "index": torch.arange(1)}
    with pytest.raises(InputError, match="multiples of 8"):
        model.training_step(batch, 0)
    batch = {"images": torch.zeros(1, 3, 12, 12, dtype=torch.uint8), "index": torch.arange(1)}
    odd = {"images": torch.zeros(1, 3, 19, 19, dtype=torch.uint8), "index": torch.arange(1)}
    assert implicit().loss(odd, (0,)).isfinite()  # low_size alone is in whole patches
    with pytest.raises(InputError, match="at least low_size 16×16, got 12×12"):
        implicit().training_step(batch, 0)


@pytest.mark.parametrize(
    ("config", "told", "options"),
    [
        (
            "binary_codec",
            "BINARY-48 on 2 images: 0.75 bits a pixel",
            {"data.train": "shards", "data.num_workers": 0, "trainer.val_check_interval": 2},
        ),
        (
            "scale_codec",
            "SCALAR-24 on 2 images: 1.5 bits a pixel",
            {"data.crop_size": 64, "data.crops_per_epoch": 4, "model.low_size": 16,
             "model.drawn_size": 16},
        ),
    ],
)  # fmt: skip
def test_the_real_commands_make_a_codec_of_a_few_images(
    config: str,
    told: str,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["lit-mbldm"])
    monkeypatch.chdir(tmp_path)
    photos = str(Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos")
    main(["shards", photos, "shards", "--size", "64", "--val", "0.3"])
    options = {
        "data.batch_size": 2,
        "model.network.init_args.base_channels": 8,
        "trainer.max_steps": 2,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.logger.init_args.save_dir": "runs",
        **options,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    main(["fit", "--config", config, *words])
    run = f"runs/{config}/version_0"
    main(["export", run, "codec"])
    assert load_pretrained("./codec").fingerprint == load_pretrained(run).fingerprint
    assert "A learned codec" in Path("codec/README.md").read_text()
    main(["encode", "shards", "codes", "--codec", "./codec"])
    main(["codec", "report", "./codec", photos, "--max-images", "2"])
    assert told in capsys.readouterr().out
