import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image
from torch import Tensor

from lit_mbldm.codecs import DecoderCodec, PatchCodec, PrincipalLatent
from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import Sampler
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    Refiner,
    SampleImages,
    SampleOptions,
)
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.training.sampling import frame_steps
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


@pytest.mark.parametrize(
    ("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpm++", 0.0)]
)
def test_a_seed_gives_the_same_images_at_any_batch_size(
    model: DiffusionModule, sampler: Sampler, eta: float
) -> None:
    draw = partial(model.sample, steps=4, sampler=sampler, eta=eta)
    whole = draw(5, seed=3, batch_size=5)
    assert whole.shape == (5, 3, 32, 32)
    assert whole.dtype == torch.uint8
    for batch_size in (1, 2, 16):
        assert torch.equal(draw(5, seed=3, batch_size=batch_size), whole)
    assert not torch.equal(draw(5, seed=4), whole)
    assert torch.equal(draw(2, seed=3), whole[:2])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_path_leads_from_decoded_noise_to_the_image(
    model: DiffusionModule, sampler: Sampler
) -> None:
    options = SampleOptions(steps=4, seed=5, sampler=sampler)
    paths = model.sample_paths(2, options, frames=3)
    assert paths.shape == (2, 3, 3, 32, 32)
    noise = SampleStreams([(5, 0), (5, 1)]).normal((6, 4, 4))
    assert torch.equal(paths[:, 0], model.codec.decode(model.latent.to_codes(noise)))
    images = model.generate([0, 1], options)
    assert torch.equal(paths[:, -1], images)
    assert not torch.equal(paths[:, 1], images)


def test_a_path_s_frames_are_evenly_spread_and_within_it() -> None:
    assert frame_steps(11, 50) == list(range(0, 51, 5))
    assert frame_steps(3, 5) == [0, 2, 5]
    assert frame_steps(6, 5) == list(range(6))
    for frames in (-1, 1, 7):
        with pytest.raises(InputError, match="from 2 to 6 frames"):
            small("continuous").sample_paths(1, SampleOptions(steps=5), frames)


def test_sampling_leaves_the_model_as_it_was(model: DiffusionModule) -> None:
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.sample(1, steps=2)
    assert model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())


def fit(
    model: DiffusionModule, folder: Path, resumed_from: Path | None = None, **options: object
) -> L.Trainer:
    L.seed_everything(0)
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            SampleImages(num_images=4, options=SampleOptions(steps=2)),
            EMAWeightAveraging(decay=0.7, use_buffers=False),
            ModelCheckpoint(folder / "checkpoints", save_last=True),
        ],
        **options,  # type: ignore[arg-type]
    )
    data = CropDataModule(crop_size=32, batch_size=4, crops_per_epoch=16)
    trainer.fit(model, data, ckpt_path=resumed_from)
    return trainer


def test_processes_with_different_codecs_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, compared = small("continuous"), []
    monkeypatch.setattr("lit_mbldm.training.module.all_equal", compared.append)
    with pytest.raises(InputError, match=r"processes have different codecs.*org/repo@commit"):
        fit(model, tmp_path, max_steps=1)
    assert compared == [model.codec.fingerprint]


def same(found: object, expected: object) -> bool:
    """Whether two nests of dicts, lists, numbers and tensors are equal to the last bit."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        return torch.equal(found, expected)
    return found == expected


@pytest.mark.parametrize(
    ("kind", "killed_after"), [("continuous", 4), ("categorical", 2)], ids=["epoch", "mid-epoch"]
)
def test_a_resumed_run_repeats_one_that_was_not_killed(
    kind: str, killed_after: int, tmp_path: Path
) -> None:
    """Averaged and current weights, Adam's moments and the learning rate, bit for bit."""

    def run(name: str, steps: int, resumed_from: Path | None = None) -> Path:
        fit(small(kind), tmp_path / name, resumed_from, max_steps=steps)
        return tmp_path / name / "checkpoints" / "last.ckpt"

    killed = run("killed", killed_after)
    paths = killed, run("resumed", 6, killed), run("whole", 6)
    half, resumed, whole = (torch.load(path, weights_only=True) for path in paths)
    trained = ["state_dict", "current_model_state", "optimizer_states"]
    for part in [*trained, "averaging_state", "lr_schedulers", "global_step"]:
        assert same(resumed[part], whole[part]), part
    for part in trained:
        assert not same(half[part], whole[part]), part


def test_means_of_an_epoch_survive_a_stop_in_its_middle(tmp_path: Path) -> None:
    def logged(name: str, steps: int, resumed_from: Path | None = None) -> dict[str, float]:
        trainer = fit(small("continuous"), tmp_path / name, resumed_from, max_steps=steps)
        found = {key: value.item() for key, value in trainer.logged_metrics.items()}
        return {key: found[key] for key in found if key.startswith("train/loss_at")}

    logged("killed", 2)
    resumed = logged("resumed", 4, tmp_path / "killed" / "checkpoints" / "last.ckpt")
    whole = logged("whole", 4)
    assert len(whole) == 10
    assert str(resumed) == str(whole)  # some are NaN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "euler"),
        ({"eta": 0.5}, "eta is ddim's"),
        ({"steps": 1001}, r"\[1, 1000\]"),
        ({"temperature": -1.0}, "a number from 0"),
        ({"temperature": math.nan}, "a number from 0"),
    ],
)
def test_wrong_options_of_samples_are_refused_before_training(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SampleImages(options=SampleOptions(**options)).setup(
            L.Trainer(logger=False), small("categorical"), "fit"
        )


def test_losses_by_time_are_logged_and_average_to_the_loss(tmp_path: Path) -> None:
    trainer = fit(small("continuous"), tmp_path, max_epochs=1)
    logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
    for stage in ("train", "val"):
        names = [name for name in logged if name.startswith(f"{stage}/loss_at/")]
        assert len(names) == 10
        known = [logged[name] for name in names if not math.isnan(logged[name])]
        assert len(set(known)) > 1
    assert min(known) < logged["val/loss"] < max(known)


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
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    kinds = ["path", "samples", *(["temperatures"] if kind == "categorical" else [])]
    steps = sorted({name.rpartition("-")[2] for name in drawn})
    assert len(steps) == 2
    assert drawn == [f"{name}-{step}" for name in kinds for step in steps]
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
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_a_sample_s_loss_depends_on_its_number_alone(kind: str) -> None:
    model = small(kind)
    codes = torch.randint(0, 256, (4, 6, 4, 4), dtype=torch.uint8)

    def loss(*numbers: int, key: int = 5) -> float:
        index = torch.tensor(numbers)
        return model.loss({"codes": codes[index], "index": index}, (key,), LossByTime()).item()

    assert loss(3, 1, 0, 2) == pytest.approx((loss(0, 1) + loss(2, 3)) / 2, rel=1e-5)
    assert loss(0) != pytest.approx(loss(0, key=6), rel=1e-3)


def test_batches_without_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="index"):
        small("continuous").loss(
            {"codes": torch.zeros(1, 6, 4, 4, dtype=torch.uint8)}, (0,), LossByTime()
        )


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


def test_a_refiner_of_another_codec_is_refused(tmp_path: Path) -> None:
    refiner = Refiner("opq-32-8-8", RefinerUNet(8, (1,), 1))
    refiner.codec.get_buffer("channels.0.codewords")[0, 0] += 1
    save_entry(refiner, tmp_path / "refiner")
    with pytest.raises(InputError, match="another codec"):
        small("continuous").settle(SampleOptions(refiner=str(tmp_path / "refiner")))


def principal() -> ContinuousDiffusion:
    latent = PrincipalLatent(3)
    unet = UNet(18, 18, 16, (1, 2), 1)
    return ContinuousDiffusion("opq-32-8-8", unet, GaussianProcess(), 32, latent=latent)


def test_a_principal_latent_is_what_is_noised_and_what_is_decoded() -> None:
    """A network that knows the codewords' coordinates loses nothing, and samples these codes."""
    model = principal()
    model.process = GaussianProcess(objective="x0")
    codes = torch.randint(0, 256, (1, 6, 4, 4), dtype=torch.uint8)
    z0 = model.latent.to_latent(codes)

    class Knows(torch.nn.Module):
        def forward(self, z_t: Tensor, *rest: Tensor) -> Tensor:
            return z0.expand_as(z_t)

    model.denoiser = Knows()
    batch = {"codes": codes.expand(3, -1, -1, -1), "index": torch.arange(3)}
    assert float(model.loss(batch, (0, 0, 0), LossByTime())) == pytest.approx(0, abs=1e-10)
    assert torch.equal(model.sample(1, steps=3), model.codec.decode(codes))


def test_a_principal_model_s_channels_are_told() -> None:
    with pytest.raises(InputError, match=r"in_channels: 18, got 6\. Leave in_channels"):
        ContinuousDiffusion(
            "opq-32-8-8", UNet(6, 6, 16, (1,), 1), GaussianProcess(), 32, latent=PrincipalLatent(3)
        )
    with pytest.raises(InputError, match="CategoricalDiffusion needs a IndexLatent"):
        CategoricalDiffusion(
            "opq-32-8-8",
            UNet(18, 4608, 16, (1,), 1),
            CategoricalProcess(),
            32,
            latent=PrincipalLatent(3),
        )


def with_decoder(seed: int) -> DecoderCodec:
    torch.manual_seed(seed)
    return DecoderCodec(load_codec("opq-32-8-8"), RefinerUNet(8, (1,), 1))


def test_a_refiner_belongs_behind_the_decoder_whose_images_it_learned(tmp_path: Path) -> None:
    """Also after a fit, whose averaging of weights must leave the decoder as it was."""
    unet = UNet(6, 6, 16, (1,), 1)
    model = ContinuousDiffusion(with_decoder(0), unet, GaussianProcess(), 32)
    fit(model, tmp_path, max_steps=3)
    trained = load_pretrained(tmp_path / "checkpoints" / "last.ckpt")
    assert isinstance(trained, DiffusionModule)
    trained.use_refiner(Refiner(with_decoder(0), RefinerUNet(8, (1,), 1)))
    for other in (with_decoder(1), load_codec("opq-32-8-8")):
        with pytest.raises(InputError, match="another codec"):
            trained.use_refiner(Refiner(other, RefinerUNet(8, (1,), 1)))


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_channels_follow_from_codec_latent_and_process(kind: str) -> None:
    typed = small(kind)
    torch.manual_seed(0)
    model = type(typed)("opq-32-8-8", UNet(None, None, 16, (1, 2), 1), type(typed.process)(), 32)
    for name, weight in typed.denoiser.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], weight)
    four = PatchCodec("PQ-4-2-2", patch_size=2, codebook_size=4)
    assert model.codes_shape == (6, 4, 4)
    narrow = type(typed)(four, UNet(None, None, 16, (1,), 1), type(typed.process)(), 8)
    assert narrow.denoiser.head.out_channels == (16 if kind == "categorical" else 4)
    with pytest.raises(InputError, match="codebook_size 256, the codec 4: leave"):
        type(typed)(four, UNet(None, None, 16, (1,), 1), type(typed.process)(codebook_size=256), 8)
