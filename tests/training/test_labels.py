"""Labels from data to checkpoint to samples, and what is told of those that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import write_card
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    DiffusionModule,
    SampleImages,
    SampleOptions,
    WriteSamples,
)
from lit_mbldm.training.labels import label_numbers
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.zoo import load_pretrained

NAMES = ["Crop", "Forest", "River"]
EVERY_KIND = pytest.mark.parametrize("kind", ["continuous", "categorical"])


def make(
    kind: str = "continuous",
    class_names: list[str] | None = NAMES,
    awake: bool = True,
    seed: int = 0,
    image_size: int = 32,
    **options: Any,
) -> DiffusionModule:
    """A small model of 32×32 images; an awake one's samples follow label and guidance."""
    torch.manual_seed(seed)
    network = UNet(base_channels=16, channel_multipliers=(1,), blocks_per_level=1)
    options |= {"class_names": class_names}
    made: DiffusionModule
    if kind == "continuous":
        made = ContinuousDiffusion("opq-32-8-8", network, GaussianProcess(), image_size, **options)
    else:
        process = CategoricalProcess(latent_weight=0, image_weight=0, cross_entropy_weight=1)
        made = CategoricalDiffusion("opq-32-8-8", network, process, image_size, **options)
    for name, parameter in made.denoiser.named_parameters() if awake else ():
        torch.nn.init.normal_(parameter, std=0.5 if name in ("labels", "head.weight") else 0.1)
    return made


class Labelled(L.LightningDataModule):
    """Eight images of random codes, of these classes in turn."""

    def __init__(self, class_names: list[str] | None) -> None:
        super().__init__()
        self.class_names: list[str] | None = None
        self._found = class_names

    def setup(self, stage: str) -> None:
        self.class_names = self._found

    def train_dataloader(self) -> Any:
        return DataLoader(samples(len(self.class_names or ())), batch_size=4)

    val_dataloader = train_dataloader


def samples(num_classes: int, count: int = 8) -> Any:
    codes = torch.randint(0, 256, (count, 6, 4, 4), generator=torch.manual_seed(0)).byte()
    label = {"label": torch.arange(count) % num_classes} if num_classes else {}
    return [
        {"codes": codes[i], "index": i, **{name: one[i] for name, one in label.items()}}
        for i in range(count)
    ]


def batch(*numbers: int) -> dict[str, Tensor]:
    rows = [samples(3)[number] for number in numbers]
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}


def fit(
    model: DiffusionModule,
    folder: Path,
    quiet: dict[str, Any],
    class_names: list[str] | None = NAMES,
    **options: Any,
) -> Path:
    """The checkpoint of one more step."""
    callbacks = [SampleImages(7, SampleOptions(steps=2, guidance=1.5, guidance_interval=(0, 0.7)))]
    trainer = L.Trainer(default_root_dir=folder, callbacks=callbacks, **quiet, **options)
    trainer.fit(model, Labelled(class_names))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


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
    assert not torch.equal(model.sample(2, 3, guidance=2.0, guide=guide), model.sample(2, 3))


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


def test_labels_may_be_ignored(quiet: dict[str, Any]) -> None:
    model = make("continuous", [])
    L.Trainer(max_steps=1, **quiet).fit(model, Labelled(NAMES))
    assert model.class_names == []
    assert model.denoiser.labels is None


def test_label_dropout_is_a_share() -> None:
    with pytest.raises(InputError, match="label_dropout from 0 to 1, got 10"):
        make(label_dropout=10)


def test_options_become_flags_of_the_command() -> None:
    options = SampleOptions(guidance=1.5, guidance_interval=(0.2, 0.8), label=["River", "a b", 1])
    told = "--guidance 1.5 --guidance-interval 0.2 0.8 --seed 3 --label River 'a b' 1"
    assert options.flags(seed=3) == told
