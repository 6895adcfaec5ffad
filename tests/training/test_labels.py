"""Labels from data to checkpoint, in training, and data of other classes."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from labelled import EVERY_KIND, NAMES, Labelled, batch, fit, make

from lit_mbldm.entries.entry import save_entry
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import write_card
from lit_mbldm.training import DiffusionModule, SampleImages, SampleOptions, WriteSamples
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained


@EVERY_KIND
def test_classes_come_with_the_data_and_stay_with_checkpoint_and_entry(
    kind: str, quiet: dict[str, Any], tmp_path: Path
) -> None:
    model = make(kind, None)
    path = fit(model, tmp_path, quiet, max_steps=2)
    assert model.class_names == NAMES
    loaded = load_pretrained(path)
    assert loaded.class_names == NAMES
    assert loaded.sampling == SampleOptions(steps=2, guidance=1.5, guidance_interval=(0, 0.7))
    forest = loaded.sample(2, label="Forest")
    assert torch.equal(
        forest, model.sample(2, 2, label=1, guidance=1.5, guidance_interval=(0, 0.7))
    )
    save_entry(loaded, tmp_path / "entry")
    entry = load_pretrained(tmp_path / "entry")
    assert torch.equal(entry.sample(2, label="Forest"), forest)
    assert "- Classes: Crop, Forest, River" in write_card(entry, entry.about)


def test_a_fresh_model_takes_the_classes_of_the_checkpoint_it_is_tested_with(
    quiet: dict[str, Any], tmp_path: Path
) -> None:
    path = fit(make("continuous", None), tmp_path, quiet, max_steps=1)

    def predict(label: str) -> None:
        draw = WriteSamples(2, options=SampleOptions(label=label), out=str(tmp_path / label))
        guided = SampleImages(options=SampleOptions(guidance=1.5))  # as the config has it
        trainer = L.Trainer(callbacks=[guided, draw], **quiet)
        fresh = make("continuous", None)
        trainer.predict(fresh, draw.numbers(), ckpt_path=path, return_predictions=False)

    predict("River")
    assert len(list((tmp_path / "River").glob("*.png"))) == 2
    with pytest.raises(InputError, match=r"no class 'Rivers'.* such as River"):
        predict("Rivers")


@EVERY_KIND
def test_a_network_that_begins_at_zero_has_the_loss_of_one_without_labels(kind: str) -> None:
    """Times, noise and coins are drawn as without labels, at any dropout."""
    models = [
        make(kind, names, awake=False, label_dropout=dropout)
        for names, dropout in ((None, 0.1), (NAMES, 0.0), (NAMES, 0.5))
    ]
    losses = [model.loss(batch(0, 1, 2), (5,), LossByTime()) for model in models]
    assert losses[0] == losses[1] == losses[2]


@torch.no_grad()
@EVERY_KIND
def test_a_sample_s_loss_depends_on_its_number_and_label_alone(kind: str) -> None:
    model = make(kind, label_dropout=0.5)

    def loss(*numbers: int) -> float:
        return model.loss(batch(*numbers), (5,), LossByTime()).item()

    whole = loss(3, 1, 0, 2)
    assert whole == pytest.approx((loss(0, 1) + loss(2, 3)) / 2, rel=1e-5)
    model.eval()
    assert loss(3, 1, 0, 2) != pytest.approx(whole, rel=1e-6)


def test_a_share_of_labels_is_left_out_in_training_alone() -> None:
    model, count = make(label_dropout=0.3), 2000
    many = {"label": torch.arange(count) % 3, "index": torch.arange(count)}
    streams = model.streams(many, (7,))
    told = model.batch_condition(many, streams)
    assert told is not None
    dropped = told == -1
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(told[~dropped], many["label"][~dropped])
    assert torch.equal(model.eval().batch_condition(many, streams), many["label"])


def test_labels_are_learned() -> None:
    """Where all images of a class are equal, a wrong label costs more than the right one."""
    model = make(awake=False)
    model.process.self_conditioning = False  # for speed
    plain = torch.tensor([20, 120, 220]).view(3, 1, 1, 1).expand(3, 6, 4, 4)
    label = torch.arange(12) % 3
    data = {"codes": plain[label].byte(), "label": label, "index": torch.arange(12)}
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 1e-2)
    for step in range(60):
        loss = model.loss(data, (0, step), LossByTime())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model.loss(data, (1,), LossByTime())
        wrong = model.loss({**data, "label": (label + 1) % 3}, (1,), LossByTime())
    assert right < 0.8 * wrong


def test_pictures_of_a_run_have_a_row_a_class(
    quiet: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SampleOptions] = []
    batches = DiffusionModule.batches

    def noted(self: Any, count: int, options: SampleOptions, *rest: Any, **named: Any) -> Any:
        asked.append(options)
        return batches(self, count, options, *rest, **named)

    monkeypatch.setattr(DiffusionModule, "batches", noted)
    fit(make("continuous", None), tmp_path, quiet, max_epochs=1)
    assert asked[-1].label == [0, 0, 1, 1, 2, 2]
    assert list((tmp_path / "pictures").iterdir())


@pytest.mark.parametrize(
    ("own", "found", "message"),
    [
        (NAMES, [*NAMES, "Sea"], "has 3 classes, the data has 4"),
        (NAMES, ["Crop", "Forest", "Sea"], "Class 2 of the model is 'River', of the data 'Sea'"),
        (NAMES, None, "learns 3 classes, but the data has no labels"),
    ],
)
def test_data_of_other_classes_is_refused(
    own: list[str], found: list[str] | None, message: str, quiet: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(make("continuous", own), tmp_path, quiet, found, max_steps=1)


def test_one_text_is_no_list_of_classes() -> None:
    with pytest.raises(InputError, match="class_names as a list, got 'Kiwi'"):
        make("continuous", "Kiwi")


def test_labels_may_be_ignored(quiet: dict[str, Any]) -> None:
    model = make("continuous", [])
    L.Trainer(max_steps=1, **quiet).fit(model, Labelled(NAMES))
    assert model.class_names == []
    assert model.denoiser.labels is None


def test_label_dropout_is_a_share() -> None:
    with pytest.raises(InputError, match="label_dropout from 0 to 1, got 10"):
        make(label_dropout=10)
