from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.cli import main
from lit_mbldm.codecs import BitLatent, CoefficientLatent
from lit_mbldm.codecs.sizes import resize, to_uint8
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.denoisers import MultiStageUNet, TokenTransformer, UNet
from lit_mbldm.errors import InputError
from lit_mbldm.images import fit_square, load_rgb
from lit_mbldm.pictures import save, to_tensor
from lit_mbldm.processes import BernoulliProcess, CategoricalProcess, GaussianProcess
from lit_mbldm.processes.multi_stage import MultiStageProcess
from lit_mbldm.processes.stages import Pool
from lit_mbldm.training import Upscaler
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained

PHOTOS = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def model(kind: str = "coefficients", **options: Any) -> Upscaler:
    """One of 32×32 images with weights that make every input count."""
    torch.manual_seed(0)
    parts: dict[str, tuple[Any, Any]] = {
        "coefficients": (GaussianProcess(objective="v"), CoefficientLatent(12)),
        "indices": (CategoricalProcess(cross_entropy_weight=1.0), None),
        "bits": (BernoulliProcess(), BitLatent("gray")),
    }
    process, latent = parts[kind]
    network = options.pop("denoiser", None) or UNet(None, None, 8, (1, 2), 1)
    made = Upscaler("jpq-32-4x4", network, process, 32, latent=latent, **options)
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if kind == "coefficients":
        pixels = photos(32)
        made.latent.fit(made.latent.moments(made.codec.encode(pixels), pixels))
    return made.eval()


def photos(side: int) -> Tensor:
    return torch.stack([to_tensor(fit_square(one, side)) for one in read_images(PHOTOS).values()])


def batch(model: Upscaler) -> dict[str, Tensor]:
    pixels = photos(32)
    return {"images": pixels, "codes": model.codec.encode(pixels), "index": torch.arange(4)}


@pytest.mark.parametrize("kind", ["coefficients", "indices", "bits"])
def test_every_process_learns_and_draws_from_a_smaller_image(kind: str) -> None:
    upscaler = model(kind).train()
    data = batch(upscaler)
    upscaler.loss(data, (0,), LossByTime()).backward()
    stem: Any = upscaler.denoiser.stem  # its last inputs are the map
    assert stem.weight.grad[:, -upscaler.map_channels :].abs().sum() > 0
    small = to_uint8(resize(data["images"].float(), (16, 16)))
    drawn = upscaler.upscale(small, (32, 30), steps=2)
    assert drawn.shape == (4, 3, 32, 30)
    assert not torch.equal(drawn, upscaler.upscale(small.flip(2), (32, 30), steps=2).flip(2))


def test_what_it_is_told_is_the_image_as_made_smaller_by_a_scale_of_its_own() -> None:
    upscaler = model(max_scale=2.0)
    data = batch(upscaler)
    told = upscaler.batch_condition(data, upscaler.streams(data, (0,)))
    assert told is not None
    patches = torch.nn.functional.pixel_unshuffle(data["images"] / 127.5 - 1, 4)
    assert told.shape == patches.shape
    assert 0 < (told - patches).abs().mean() < 0.2
    alone = {name: value[2:3] for name, value in data.items()}  # whatever the batch
    assert torch.equal(told[2:3], upscaler.batch_condition(alone, upscaler.streams(alone, (0,))))  # type: ignore[arg-type]


def test_an_image_depends_on_seed_and_place_and_not_on_others() -> None:
    upscaler, small = model(), photos(24)
    drawn = upscaler.upscale(small[:2], (40, 37), steps=2, seed=5)
    assert torch.equal(drawn[:1], upscaler.upscale(small[:1], (40, 37), steps=2, seed=5))
    assert not torch.equal(drawn, upscaler.upscale(small[:2], (40, 37), steps=2, seed=6))
    assert not torch.equal(drawn[1], upscaler.upscale(small[1:2], (40, 37), steps=2, seed=5)[0])


def test_beyond_its_scale_the_codec_enlarges() -> None:
    upscaler, small = model(max_scale=2.0), photos(10)[:1]
    drawn = upscaler.upscale(small, (20, 20), steps=2)
    far = upscaler.upscale(small, (50, 50), steps=2)
    assert far.shape == (1, 3, 50, 50)
    back = resize(far.float(), (20, 20))
    assert (back - drawn).abs().mean() < 0.25 * drawn.float().std()


def test_the_transformer_takes_a_map_too() -> None:
    upscaler = model(denoiser=TokenTransformer(width=8, depth=1, num_heads=2))
    assert upscaler.upscale(photos(24)[:1], (48, 36), steps=1).shape == (1, 3, 48, 36)


def test_what_does_not_fit_is_refused() -> None:
    upscaler, small = model(), photos(24)
    for call, told in (
        (lambda: upscaler.sample(1), "upscale"),
        (lambda: upscaler.vary(photos(32), 0.5), "upscale"),
        (lambda: upscaler.upscale(small, (23, 40)), "makes an image larger"),
        (lambda: upscaler.upscale(small, (0, 40)), "height, width"),
        (lambda: upscaler.upscale(small, (40, 40), label=1), "no labels"),
        (lambda: model(max_scale=1.0), "above 1"),
        (lambda: model(denoiser=UNet(12, 12, 8, (1,), 1)), "layers for a map of 0 channels"),
        (lambda: model(denoiser=torch.nn.Identity()), "takes a map"),
        (lambda: upscaler.batch_condition({}, None), "image shards"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=told):
            call()
    stages = MultiStageProcess([Pool(2)], [0.5])
    with pytest.raises(InputError, match="keeps the latent's shape"):
        Upscaler("jpq-32-4x4", MultiStageUNet(None, None, 8, (1, 1), 1), stages, 32)


def test_the_real_commands_train_and_upscale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["lit-mbldm"])
    monkeypatch.chdir(tmp_path)
    options = {
        "data": "lit_mbldm.data.CropDataModule",
        "data.batch_size": 2,
        "data.crop_size": 32,
        "data.crops_per_epoch": 4,
        "model.image_size": 32,
        "model.denoiser.init_args.base_channels": 8,
        "model.process.init_args.alignment_weight": 1,
        "trainer.max_steps": 2,
        "trainer.limit_val_batches": 0,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    main(["fit", "--config", "small64_upscaler", *words])
    run = "runs/small64_upscaler/version_0"
    main(["export", run, "entry"])
    save(photos(20)[0], tmp_path / "photo.png")
    main(["upscale", "photo.png", "--scale", "2.7", "--model", "entry", "--steps", "2"])
    drawn = to_tensor(load_rgb((tmp_path / "upscaled.png").read_bytes()))
    expected = load_pretrained(run).upscale(photos(20)[:1], (54, 54), steps=2)
    assert torch.equal(drawn, expected[0])
    for command, told in (
        ("--model jpq-48", "takes an Upscaler"),
        ("--model entry --codec jpq-48", "leave --codec or --model out"),
        ("--steps 3", "add --model"),
        ("--sampler ddim", "add --model"),
    ):
        with pytest.raises(SystemExit, match=told):
            main(["upscale", "photo.png", "--scale", "2", *command.split()])
