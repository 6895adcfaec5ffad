from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.hub.export import export
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    SampleImages,
    SampleOptions,
    options,
)
from lit_mbldm.zoo import load_pretrained

OWN = {"steps": 3, "sampler": "ddim", "eta": 0.5, "temperature": 0.3}


@pytest.fixture
def model() -> CategoricalDiffusion:
    """A model whose samples follow every option."""
    torch.manual_seed(0)
    network = UNet(6, 1536, 8, (1,), 1)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return CategoricalDiffusion("opq-32-8-8", network, CategoricalProcess(), 16)


@pytest.mark.parametrize(
    "seed", [np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1).byte()]
)
def test_equal_integers_are_one_seed(model: CategoricalDiffusion, seed: Any) -> None:
    assert torch.equal(model.sample(1, 2, seed), model.sample(1, 2, 1))


@pytest.mark.parametrize(
    "seed",
    [True, np.True_, torch.tensor(True), np.array(True), 1.0, np.float32(1), torch.tensor(1.0), "1",
     [1, 2], (1,), np.array([1]), torch.tensor([1])],
)  # fmt: skip
def test_what_is_no_integer_is_no_seed(model: CategoricalDiffusion, seed: Any) -> None:
    with pytest.raises(InputError, match="one whole number as seed, got"):
        model.sample(1, 2, seed)


def test_no_seed_is_a_fresh_one_which_is_told(
    model: CategoricalDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(options, "rank_zero_info", told.append)
    first, second = model.sample(1, 2, None), model.sample(1, 2, None)
    assert not torch.equal(first, second)
    seed = int(told[0].removeprefix("Fresh seed: "))
    assert torch.equal(model.sample(1, 2, seed), first)


def test_a_model_samples_by_its_own_options(model: CategoricalDiffusion) -> None:
    expected = model.sample(2, **OWN)
    assert not torch.equal(model.sample(2, 3), expected)
    model.sampling = SampleOptions(**OWN)
    assert torch.equal(model.sample(2), expected)
    assert torch.equal(model.generate([0, 1], SampleOptions()), expected)
    other = model.sample(2, temperature=2.0)
    assert torch.equal(other, model.sample(2, **{**OWN, "temperature": 2.0}))
    assert torch.equal(model.sample(2, sampler="ddpm"), model.sample(2, sampler="ddpm", eta=0.0))


def test_argmax_is_temperature_zero(model: CategoricalDiffusion) -> None:
    argmax = model.sample(1, 2, temperature="argmax")
    assert torch.equal(argmax, model.sample(1, 2, temperature=0))
    for wrong in ("warm", -1.0, float("nan"), [1]):
        with pytest.raises(InputError, match="a number from 0, or argmax"):
            model.sample(1, 2, temperature=wrong)  # type: ignore[arg-type]
    continuous = ContinuousDiffusion("opq-32-8-8", UNet(6, 6, 8, (1,), 1), GaussianProcess(), 16)
    with pytest.raises(InputError, match="takes no temperature"):
        continuous.sample(1, temperature=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_is_not_rounded_but_samples_under_autocast(
    model: CategoricalDiffusion, dtype: torch.dtype
) -> None:
    expected = model.sample(1, 2)
    with pytest.raises(InputError, match=r"torch\.autocast"):
        model.to(dtype)
    assert torch.equal(model.sample(1, 2), expected)
    with torch.autocast("cpu", dtype=dtype):
        assert model.sample(1, 2).shape == expected.shape


def test_the_config_s_options_stay_with_checkpoint_and_entry(
    model: CategoricalDiffusion, tmp_path: Path
) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[SampleImages(1, SampleOptions(**OWN, seed=3))],
    )
    batch = {"codes": torch.zeros(6, 2, 2, dtype=torch.uint8), "index": 0}
    trainer.fit(model, DataLoader([batch], batch_size=1))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_pretrained(tmp_path / "last.ckpt")
    assert loaded.sampling == SampleOptions(**OWN)
    assert torch.equal(loaded.sample(2), model.sample(2, **OWN))
    export(tmp_path / "last.ckpt", tmp_path / "entry", {})
    assert load_pretrained(tmp_path / "entry").about.sampling == OWN
    assert "temperature=0.3" in (tmp_path / "entry" / "README.md").read_text(encoding="utf-8")
    export(tmp_path / "last.ckpt", tmp_path / "fewer", {"sampling": {"steps": 2}})
    assert load_pretrained(tmp_path / "fewer").about.sampling == {**OWN, "steps": 2}
