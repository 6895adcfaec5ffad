from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_mbldm.cli import main
from lit_mbldm.codecs import ImplicitCodec
from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import ImplicitNetwork
from lit_mbldm.errors import InputError
from lit_mbldm.training import ImplicitDecoder
from lit_mbldm.training.implicit import crop
from lit_mbldm.zoo import load_pretrained

PHOTOS = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def decoder(codec: str = "jpq-48", **options: Any) -> ImplicitDecoder:
    torch.manual_seed(0)
    network = ImplicitNetwork(None, 16, 1)
    sizes: dict[str, Any] = {"low_size": 24, "max_scale": 3.0, "drawn_size": 48}
    return ImplicitDecoder(codec, network, **(sizes | options), learning_rate=3e-4)


def crops(count: int = 8) -> CropDataModule:
    return CropDataModule(crop_size=72, batch_size=8, crops_per_epoch=count)


def prepared(data: CropDataModule) -> CropDataModule:
    data.setup()
    return data


def test_training_starts_from_a_fitted_filter_and_a_checkpoint_is_the_codec(
    quiet: dict[str, Any], tmp_path: Path
) -> None:
    model = decoder()
    before = L.Trainer(**quiet).validate(model, crops(), verbose=False)[0]
    assert before["val/psnr_2x"] == before["val/psnr_2x_bicubic"]
    assert "val/psnr_4x" not in before
    trainer = L.Trainer(**quiet, max_epochs=1, limit_val_batches=0)
    trainer.fit(model, crops(16))
    assert model.network.filter.kernels.weight.any()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    codec = load_pretrained(tmp_path / "last.ckpt")
    assert isinstance(codec, ImplicitCodec)
    assert codec.image_fingerprint == model.trained().image_fingerprint
    again = L.Trainer(**quiet, max_epochs=2, limit_val_batches=0)  # and training goes on
    again.fit(decoder(), crops(8), ckpt_path=tmp_path / "last.ckpt")
    assert again.current_epoch == 2


def test_steps_lower_the_loss() -> None:
    model = decoder()
    images = next(iter(prepared(crops()).train_dataloader()))
    optimizer = torch.optim.Adam(model.network.parameters(), 1e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(images, (0,))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.998 * losses[0]


def test_training_draws_what_the_codec_decodes() -> None:
    model = decoder()
    torch.nn.init.normal_(model.network.head.weight, std=0.1)
    images = torch.randint(0, 256, (2, 3, 60, 60), dtype=torch.uint8)
    low = torch.nn.functional.interpolate(images.float(), (24, 24), mode="bicubic", antialias=True)
    codec = model.trained()
    decoded = codec.decode(codec.encode(low.round().clamp(0, 255).byte()), (60, 60))
    with torch.no_grad():
        drawn = model.draw(images, slice(7, 50), slice(0, 60))
    assert (255 * drawn.clamp(0, 1) - decoded[:, :, 7:50]).abs().max() <= 0.51


def test_crops_reach_every_place() -> None:
    image = torch.arange(20).view(1, 4, 5).expand(3, 4, 5)
    first, last = (crop(image, torch.full((2,), place), 3)[0] for place in (0.0, 0.999))
    assert first[0, 0] == 0
    assert last[-1, -1] == 19
    assert crop(image, torch.zeros(2), 4).shape == (3, 4, 4)


def test_what_does_not_fit_is_refused(quiet: dict[str, Any]) -> None:
    data = CropDataModule(crop_size=64, batch_size=2, crops_per_epoch=2)
    with pytest.raises(InputError, match="at least 72×72 pixels"):
        L.Trainer(**quiet, max_steps=1).fit(decoder(), data)
    with pytest.raises(InputError, match="codes only"):
        decoder().check({"codes": torch.zeros(1, 6, 3, 3)})
    for options, told in (
        ({"low_size": 20}, "multiples of 8"),
        ({"max_scale": 1.0}, "above 1"),
        ({"drawn_size": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=told):
            decoder(**options)


def test_the_real_commands_make_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lit-mbldm"])
    options = {
        "data.folder": PHOTOS,
        "data.batch_size": 2,
        "data.crop_size": 64,
        "data.crops_per_epoch": 4,
        "model.codec": "jpq-48",
        "model.low_size": 16,
        "model.network.init_args.base_channels": 8,
        "model.network.init_args.num_blocks": 1,
        "trainer.max_steps": 2,
        "trainer.limit_val_batches": 1,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.logger.init_args.save_dir": tmp_path,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    main(["fit", "--config", "implicit_decoder", *words])
    run, out = tmp_path / "implicit_decoder" / "version_0", tmp_path / "codec"
    main(["export", str(run), str(out)])
    codec = load_pretrained(out)
    assert codec.quantizer == "JPQ-48+scale"
    assert codec.image_fingerprint == load_pretrained(run).image_fingerprint
    assert "implicit decoder" in (out / "README.md").read_text()
