"""Samples follow from seed and options alone; options stay with a model."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_mbldm.errors import InputError
from lit_mbldm.hub.export import export
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import Sampler
from lit_mbldm.training import SampleImages, SampleOptions
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.sampling import frame_steps
from lit_mbldm.zoo import load_pretrained

OWN: dict[str, Any] = {"steps": 3, "sampler": "ddim", "eta": 0.5, "temperature": 0.3}


@pytest.fixture(params=["continuous", "categorical"])
def model(small: Callable[..., Any], request: pytest.FixtureRequest) -> DiffusionModule:
    return small(request.param, awake=True)


@pytest.fixture
def categorical(small: Callable[..., Any]) -> DiffusionModule:
    return small("categorical", awake=True)


@pytest.mark.parametrize(
    ("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpm++", 0.0)]
)
def test_a_seed_gives_the_same_images_at_any_batch_size(
    model: DiffusionModule, sampler: Sampler, eta: float
) -> None:
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    draw = partial(model.sample, steps=4, sampler=sampler, eta=eta)
    whole = draw(5, seed=3, batch_size=5)
    assert whole.shape == (5, 3, 32, 32)
    assert whole.dtype == torch.uint8
    for batch_size in (1, 2, 16):
        assert torch.equal(draw(5, seed=3, batch_size=batch_size), whole)
    assert not torch.equal(draw(5, seed=4), whole)
    assert torch.equal(draw(2, seed=3), whole[:2])
    assert model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())


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


def test_a_path_s_frames_are_evenly_spread_and_within_it(categorical: DiffusionModule) -> None:
    assert frame_steps(11, 50) == list(range(0, 51, 5))
    assert frame_steps(3, 5) == [0, 2, 5]
    assert frame_steps(6, 5) == list(range(6))
    for frames in (-1, 1, 7):
        with pytest.raises(InputError, match="from 2 to 6 frames"):
            categorical.sample_paths(1, SampleOptions(steps=5), frames)


def test_equal_integers_are_one_seed(categorical: DiffusionModule) -> None:
    expected = categorical.sample(1, 2, 1)
    for seed in (np.int64(1), np.array(1), torch.tensor(1), torch.tensor(1).byte()):
        assert torch.equal(categorical.sample(1, 2, seed), expected)


@pytest.mark.parametrize("seed", [1.0, torch.tensor(1.0), "1", (1,), np.array([1])])
def test_what_is_no_integer_is_no_seed(categorical: DiffusionModule, seed: Any) -> None:
    with pytest.raises(InputError, match="one whole number as seed, got"):
        categorical.sample(1, 2, seed)


def test_a_model_samples_by_its_own_options(categorical: DiffusionModule) -> None:
    model = categorical
    expected = model.sample(2, **OWN)
    assert not torch.equal(model.sample(2, 3), expected)
    model.sampling = SampleOptions(**OWN)
    assert torch.equal(model.sample(2), expected)
    assert torch.equal(model.generate([0, 1], SampleOptions()), expected)
    other = model.sample(2, temperature=2.0)
    assert torch.equal(other, model.sample(2, **{**OWN, "temperature": 2.0}))
    assert torch.equal(model.sample(2, sampler="ddpm"), model.sample(2, sampler="ddpm", eta=0.0))
    argmax = model.sample(1, 2, temperature="argmax")
    assert torch.equal(argmax, model.sample(1, 2, temperature=0))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("categorical", {"sampler": "euler"}, "euler"),
        ("categorical", {"eta": 0.5}, "eta is ddim's"),
        ("categorical", {"steps": 1001}, "steps from 1 to 1000, got 1001"),
        *(
            ("categorical", {"temperature": wrong}, "a number from 0, or argmax")
            for wrong in ("warm", -1.0, math.nan, [1])
        ),
        ("continuous", {"temperature": 0.5}, "takes no temperature"),
    ],
)
def test_wrong_options_are_refused_by_sampling_and_before_training(
    small: Callable[..., Any], kind: str, wrong: dict[str, Any], message: str
) -> None:
    def set_up() -> None:
        callback = SampleImages(options=SampleOptions(**wrong))
        callback.setup(L.Trainer(logger=False), small(kind), "fit")

    for refused in (lambda: small(kind).sample(1, **wrong), set_up):
        with pytest.raises(InputError, match=message):
            refused()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_is_not_rounded_but_samples_under_autocast(
    categorical: DiffusionModule, dtype: torch.dtype
) -> None:
    expected = categorical.sample(1, 2)
    with pytest.raises(InputError, match=r"torch\.autocast"):
        categorical.to(dtype)
    assert torch.equal(categorical.sample(1, 2), expected)
    with torch.autocast("cpu", dtype=dtype):
        assert categorical.sample(1, 2).shape == expected.shape


def test_the_config_s_options_stay_with_checkpoint_and_entry(
    categorical: DiffusionModule, quiet: dict[str, Any], tmp_path: Path
) -> None:
    callback = SampleImages(1, SampleOptions(**OWN, seed=3))
    trainer = L.Trainer(max_steps=1, default_root_dir=tmp_path, callbacks=[callback], **quiet)
    batch: Any = {"codes": torch.zeros(6, 4, 4, dtype=torch.uint8), "index": 0}
    trainer.fit(categorical, DataLoader([batch], batch_size=1))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_pretrained(tmp_path / "last.ckpt")
    assert loaded.sampling == SampleOptions(**OWN)
    assert torch.equal(loaded.sample(2), categorical.sample(2, **OWN))
    export(tmp_path / "last.ckpt", tmp_path / "entry", {})
    assert load_pretrained(tmp_path / "entry").about.sampling == OWN
    assert "temperature=0.3" in (tmp_path / "entry" / "README.md").read_text(encoding="utf-8")
    export(tmp_path / "last.ckpt", tmp_path / "fewer", {"sampling": {"steps": 2}})
    assert load_pretrained(tmp_path / "fewer").about.sampling == {**OWN, "steps": 2}
