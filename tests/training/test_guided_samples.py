"""Samples by label and under guidance, and what is told of those that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled import EVERY_KIND, NAMES, make

from lit_mbldm.entries.entry import save_entry
from lit_mbldm.errors import InputError
from lit_mbldm.training import SampleOptions
from lit_mbldm.training.labels import label_numbers


@EVERY_KIND
def test_classes_come_in_turn_whatever_the_batch(kind: str) -> None:
    model = make(kind)
    images = model.sample(5, 3)
    assert torch.equal(images, model.sample(5, 3, label=["Crop", 1, "River"]))
    assert torch.equal(images, model.sample(5, 3, batch_size=2))
    assert torch.equal(images[4:], model.sample(5, 3, label="Forest")[4:])
    assert not torch.equal(images[:1], model.sample(1, 3, label="Forest"))
    others = model.sample(4, 3, label=["River", 1])
    assert torch.equal(others[2:3], model.sample(3, 3, label="2")[2:])


@EVERY_KIND
def test_guidance_and_guides_change_samples_and_scale_1_does_not(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    images = model.sample(3, 3)
    assert torch.equal(images, model.sample(3, 3, guidance=1))
    led = model.sample(3, 3, guidance=2.0)
    assert not torch.equal(led, images)
    assert torch.equal(led, model.sample(3, 3, guidance=2.0, batch_size=2))
    assert not torch.equal(led, model.sample(3, 3, guidance=2.0, guidance_interval=(0.5, 1)))
    guide = make(kind, seed=1)
    auto = model.sample(3, 3, guidance=2.0, guide=guide)
    assert not torch.equal(auto, led)
    save_entry(guide, tmp_path / "guide")
    assert torch.equal(auto, model.sample(3, 3, guidance=2.0, guide=str(tmp_path / "guide")))


def test_a_model_without_labels_is_guided_by_an_earlier_one() -> None:
    model, guide = make(class_names=None), make(class_names=[], seed=1)
    images = model.sample(2, 3)
    assert not torch.equal(model.sample(2, 3, guidance=2.0, guide=guide), images)
    model.sampling = SampleOptions(3, guidance=2.0, guidance_interval=(0, 0.5), guide=guide)
    assert torch.equal(model.sample(2), images), "the guide does not stay with the model"


def test_names_and_numbers_of_labels() -> None:
    assert label_numbers(NAMES, None) == [0, 1, 2]
    assert label_numbers(NAMES, ["River", 0, "1"]) == [2, 0, 1]
    assert label_numbers(["10", "0"], "0") == [1]


@pytest.mark.parametrize(
    ("model", "wrong", "message"),
    [
        ({}, {"label": "Forrest"}, r"no class 'Forrest': .* 0 to 2 or a name, such as Forest"),
        ({}, {"label": 3}, r"no class 3: expected a number from 0 to 2"),
        ({}, {"label": ["River", -1]}, r"no class -1"),
        ({"class_names": None}, {"label": 0}, "knows no labels"),
        ({"class_names": []}, {"guidance": 2.0}, "without labels, so that guidance 2"),
        ({"label_dropout": 0.0}, {"guidance": 2.0}, "without label_dropout"),
        ({}, {"guidance": -1.0}, "scale from 0, got -1"),
        ({}, {"guidance_interval": (0.2, 0.8)}, "need a scale"),
        ({}, {"guidance": 2.0, "guidance_interval": (0.8, 0.2)}, "the lesser first, got"),
        ({}, {"guidance": 2.0, "guidance_interval": (0.2, 1.2)}, "from 0 to 1"),
    ],
)
def test_wrong_labels_and_guidance_are_told(
    model: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(**model).sample(1, 2, **wrong)


@pytest.mark.parametrize(
    ("make_guide", "message"),
    [
        (lambda: make(class_names=["Crop"]), "another list of classes: expected .*Forest"),
        (lambda: make("categorical"), "another process"),
        (lambda: "opq-32-8-8", "diffusion model as guide, got a PatchCodec"),
        (lambda: make(image_size=64), "another shape of the latent"),
    ],
)
def test_a_guide_of_another_kind_is_refused(make_guide: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().sample(1, 2, guidance=2.0, guide=make_guide())


def test_a_guide_needs_a_scale() -> None:
    with pytest.raises(InputError, match="need a scale"):
        make().sample(1, 2, guide=make(seed=1))


def test_options_become_flags_of_the_command() -> None:
    options = SampleOptions(guidance=1.5, guidance_interval=(0.2, 0.8), label=["River", "a b", 1])
    told = "--guidance 1.5 --guidance-interval 0.2 0.8 --seed 3 --label River 'a b' 1"
    assert options.flags(seed=3) == told
