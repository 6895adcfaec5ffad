import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import RefinerUNet
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.training import Refiner
from lit_mbldm.training.refiner import image_loss, load_refiner


@pytest.fixture
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner("opq-32-8-8", RefinerUNet(16, (1, 2), 1), learning_rate=3e-3)


def crops() -> CropDataModule:
    return CropDataModule(crop_size=32, batch_size=8, crops_per_epoch=8 * 100, zoom_out=4)


@pytest.fixture
def trainer(quiet: dict[str, Any]) -> Callable[..., L.Trainer]:
    return functools.partial(L.Trainer, **quiet)


def scrambled(refiner: Refiner) -> Refiner:
    for parameter in refiner.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return refiner


def smooth(seed: int, side: int = 32) -> torch.Tensor:
    """A random picture (1, 3, side, side) in [0, 1] whose border is grey."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, side // 4, side // 4, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return torch.nn.functional.pad(picture.clamp(0, 1), (16,) * 4, value=0.5)


def test_the_loss_is_l1_and_scikit_image_s_ssim() -> None:
    a, b = smooth(0), smooth(1)
    options = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "sigma": 1.5}
    options |= {"use_sample_covariance": False, "full": True}
    similarity, full = structural_similarity(a[0].numpy(), b[0].numpy(), **options)
    assert similarity < 0.9
    expected = (a - b).abs().mean() + 1 - float(np.mean(full))
    assert image_loss(a, b).item() == pytest.approx(float(expected), abs=1e-4)
    assert image_loss(a, a).item() == pytest.approx(0, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert image_loss(a, b).item() == pytest.approx(float(expected), abs=1e-4)


def test_noise_has_its_strength_and_stays_within_the_codebook(refiner: Refiner) -> None:
    codes = torch.full((3, 6, 32, 32), 128, dtype=torch.uint8)
    codes[2] = 255
    sigma = torch.tensor([0.0, 4.0, 40.0])
    noisy = refiner.corrupt(codes, sigma, refiner.streams({"index": torch.arange(3)}, (0,)))
    assert noisy.dtype == torch.uint8
    assert torch.equal(noisy[0], codes[0])
    rounded = (4.0**2 + 1 / 12) ** 0.5
    assert noisy[1].float().std().item() == pytest.approx(rounded, rel=0.05)
    assert noisy[1].float().mean().item() == pytest.approx(128, abs=0.3)
    assert (noisy[2] == 255).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert noisy[2].min() > 50  # no wrapping round


@torch.no_grad()
def test_a_sample_s_loss_does_not_depend_on_the_batch(refiner: Refiner) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)

    def loss(*numbers: int, key: int = 5) -> float:
        own = images[list(numbers)]
        batch = {"images": own, "codes": refiner.codec.encode(own), "index": torch.tensor(numbers)}
        return refiner.loss(batch, (key,)).item()

    scrambled(refiner)
    assert loss(0) != pytest.approx(loss(1), abs=1e-4)
    assert loss(0) != pytest.approx(loss(0, key=6), abs=1e-6)
    assert loss(2, 0) == pytest.approx((loss(0) + loss(2)) / 2, rel=1e-4)


@pytest.mark.slow
def test_training_improves_held_out_crops(refiner: Refiner, trainer: Any) -> None:
    before = trainer().validate(refiner, crops(), verbose=False)[0]
    for figure in ("psnr_noisy", "ssim_noisy", "psnr_clean", "ssim_clean"):
        assert before[f"val/{figure}_after"] == before[f"val/{figure}_before"]  # the identity
    L.seed_everything(0)
    trainer(max_epochs=1, limit_val_batches=0).fit(refiner, crops())
    after = trainer().validate(refiner, crops(), verbose=False)[0]
    assert after["val/psnr_noisy_before"] == before["val/psnr_noisy_before"]  # the same noise
    assert after["val/psnr_noisy_after"] > before["val/psnr_noisy_before"] + 0.5
    assert after["val/ssim_noisy_after"] > before["val/ssim_noisy_before"] + 0.03
    assert after["val/loss"] < before["val/loss"] - 0.02


def test_noisy_validation_is_at_the_greatest_noise(refiner: Refiner, trainer: Any) -> None:
    lost = []
    for refiner.noise_range in ((0.0, 0.0), (0.0, 8.0)):
        figures = trainer().validate(refiner, crops(), verbose=False)[0]
        lost.append(figures["val/psnr_clean_before"] - figures["val/psnr_noisy_before"])
    assert lost[0] == 0
    assert lost[1] > 2


def test_a_checkpoint_is_rebuilt(refiner: Refiner, trainer: Any, tmp_path: Path) -> None:
    refiner.noise_range = (0.5, 3.0)
    fit = trainer(max_steps=1, limit_val_batches=0)
    fit.fit(scrambled(refiner), crops())
    fit.save_checkpoint(tmp_path / "refiner.ckpt")
    again = load_refiner(tmp_path / "refiner.ckpt")
    assert describe(again) == describe(refiner)
    assert again.noise_range == (0.5, 3.0)
    images = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8)
    assert not torch.equal(again.refine(images), images)
    assert torch.equal(again.refine(images), refiner.refine(images))
    with pytest.raises(InputError, match="expected a Refiner"):
        load_refiner("opq-32-8-8")


def test_refining_saturates_and_leaves_the_model_as_it_was() -> None:
    class Brighten(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return images + 100 / 255

    refiner = Refiner("opq-32-8-8", Brighten())
    images = torch.tensor([0, 100, 155, 200], dtype=torch.uint8).expand(1, 3, 4, 4)
    expected = torch.tensor([100, 200, 255, 255], dtype=torch.uint8)
    assert torch.equal(refiner.refine(images), expected.expand(1, 3, 4, 4))
    assert refiner.network.training


def test_batches_of_codes_alone_are_refused(refiner: Refiner) -> None:
    batch = {"codes": torch.zeros(1, 6, 4, 4, dtype=torch.uint8)}
    with pytest.raises(InputError, match="image shards"):
        refiner.training_step(batch, 0)


def test_other_images_and_noise_ranges_are_refused(refiner: Refiner) -> None:
    for images in (torch.rand(1, 3, 32, 32), torch.zeros(3, 32, 32, dtype=torch.uint8)):
        with pytest.raises(InputError, match="uint8 RGB"):
            refiner.refine(images)
    for noise_range in ((2.0, 1.0), (-1.0, 1.0)):
        with pytest.raises(InputError, match="noise_range"):
            Refiner("opq-32-8-8", RefinerUNet(16, (1,), 1), noise_range)
