"""The demo's buttons do what the model's methods do; what cannot be done is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mbldm.codecs import PixelCodec
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import use_index
from lit_mbldm.errors import InputError
from lit_mbldm.pictures import to_batch, to_pil
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion

gr = pytest.importorskip("gradio")

from lit_mbldm.demo.actions import Actions  # noqa: E402
from lit_mbldm.demo.page import demo_page  # noqa: E402

STEPS = {"steps": 2, "seed": 3}


def make(kind: str = "continuous", class_names: list[str] | None = None, **options: Any) -> Any:
    """A model of 16×16 images."""
    torch.manual_seed(0)
    network, options = UNet(None, None, 8, (1,), 1), {"class_names": class_names, **options}
    if kind == "continuous":
        made: Any = ContinuousDiffusion("opq-32-8-8", network, GaussianProcess(), 16, **options)
    else:
        process = CategoricalProcess(cross_entropy_weight=1)
        made = CategoricalDiffusion("opq-32-8-8", network, process, 16, **options)
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture
def actions() -> Actions:
    return Actions(make(class_names=["Forest", "River"]))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (21, 35, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def strokes(side: int, *boxes: tuple[int, int]) -> dict[str, Any]:
    """What an editor of side×side pixels returns for points that were painted."""
    layer = np.zeros((side, side, 4), np.uint8)
    for y, x in boxes:
        layer[y, x] = 255
    return {"layers": [layer]}


def test_each_button_is_the_model_s(actions: Actions) -> None:
    model, picture = actions.model, to_pil(torch.randint(0, 256, (3, 16, 16)).byte())
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2, 5] = True
    label = {"label": "River"}
    for answer, expected in [
        (actions.draw(3, **STEPS), model.sample(3, **STEPS)),
        (actions.draw(2, **STEPS, **label), model.sample(2, **STEPS, **label)),
        (actions.vary(picture, 0.5, 2, **STEPS), model.vary(picture, 0.5, 2, **STEPS)),
        (actions.walk(1, 2, 3, "seeds", **STEPS), model.interpolate(1, 2, 3, **STEPS)),
        (
            actions.walk("Forest", "River", 3, "labels", **STEPS),
            model.interpolate("Forest", "River", 3, "labels", **STEPS),
        ),
        (
            actions.inpaint(picture, strokes(64, (11, 20)), 2, 2, **STEPS),
            model.inpaint(picture, mask, 2, resamplings=2, **STEPS),
        ),
    ]:
        assert torch.equal(to_batch(answer.pictures), expected)
        assert answer.facts.startswith(f"{len(expected)} pictures of 16×16 pixels, in ")


def test_a_way_ends_in_the_sample(actions: Actions) -> None:
    frames, _ = actions.path(seed=1, steps=4)
    assert len(frames) == 5
    assert torch.equal(to_batch(frames[-1]), actions.model.sample(1, seed=1, steps=4))


def test_a_grid_is_of_what_the_model_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_mbldm.demo.actions._STEPS", (1, 2))
    assert Actions(make()).row is None
    assert Actions(make(class_names=["a", "b"], label_dropout=0)).row is None
    for actions, row in [
        (Actions(make("categorical")), "temperature"),
        (Actions(make(class_names=["a", "b"])), "guidance"),
    ]:
        assert actions.row == row
        (sheet,), facts = actions.grid(seed=1)
        least = actions.model.sample(1, steps=2, seed=1, **{row: {"temperature": 0.2}.get(row, 1)})
        shown = to_batch(sheet)[0].unfold(1, 16, 1).unfold(2, 16, 1)  # (3, y, x, 16, 16)
        assert (shown == least[0][:, None, None]).flatten(3).all(3).all(0).any()
        assert "pictures of 16×16" in facts


def test_a_photograph_beside_its_codes(actions: Actions, photo: str) -> None:
    pictures, facts = actions.compress(photo)
    original = to_batch(photo)[:, :, :16, :32]
    codec = actions.model.codec
    assert torch.equal(to_batch(pictures["original"]), original)
    assert torch.equal(to_batch(pictures["codec"]), codec.decode(codec.encode(original)))
    assert "16×32 pixels, 384 bits" in facts
    assert "PSNR: codec" in facts
    assert actions.fit(photo).size == (16, 16)


def test_the_nearest_training_image_is_shown_where_the_entry_keeps_some() -> None:
    model = make()
    assert not Actions(model).indexed
    near = "The picture clicked, and the nearest training image"
    assert near not in labels_of(model)
    codes = model.codec.encode(torch.randint(0, 256, (70, 3, 16, 16)).byte())
    use_index(model, codes)
    assert near in labels_of(model)
    kept = to_pil(model.codec.decode(codes[66:67])[0].flip(-1))
    (picture, found), facts = Actions(model).nearest(kept)
    assert picture is kept
    assert torch.equal(to_batch(found), model.codec.decode(codes[66:67]))
    assert "nearest of 70 training images" in facts
    assert "at 0.00 of" in facts


def test_a_large_photograph_is_made_smaller(actions: Actions, tmp_path: Path) -> None:
    Image.new("RGB", (2100, 700), "green").save(tmp_path / "wide.png")
    pictures, _ = actions.compress(str(tmp_path / "wide.png"))
    assert pictures["codec"].size == (1024, 336)


def test_what_cannot_be_done_is_told(actions: Actions, photo: str, tmp_path: Path) -> None:
    picture = actions.fit(photo)
    Image.new("1", (10000, 10000)).save(tmp_path / "huge.png")
    Image.new("RGB", (12, 7)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    for call, told in [
        (lambda: actions.fit(None), "got none: upload one"),
        (lambda: actions.fit(str(tmp_path / "huge.png")), "10000×10000 pixels, more than"),
        (lambda: actions.fit(str(tmp_path / "small.png")), "at least 16×16 pixels"),
        (lambda: actions.fit(str(tmp_path / "text.png")), "not an image"),
        (lambda: actions.compress(str(tmp_path / "small.png")), "at least 8×8 pixels"),
        (lambda: actions.inpaint(None, None, 1, 1), "got none: upload one, or click"),
        (lambda: actions.inpaint(picture, None, 1, 1), "Expected strokes"),
        (lambda: actions.inpaint(picture, strokes(32), 1, 1), "Expected strokes"),
        (lambda: actions.inpaint(picture, strokes(40, (1, 1)), 1, 1), "got 40×40"),
        (lambda: actions.draw(1, label="Sea"), "no class 'Sea'"),
    ]:
        with pytest.raises(InputError, match=told):
            call()


def labels_of(model: Any) -> set[str]:
    """The labels of the controls on a model's page."""
    blocks = demo_page({"a": model}).blocks.values()
    return {str(block.label) for block in blocks if getattr(block, "label", None)}


def test_controls_are_those_that_the_model_takes() -> None:
    optional = {"Label", "Label 1", "Sampler", "Temperature", "Guidance"}
    continuous = labels_of(make())
    assert {"Seed", "Steps", "Seed 1"} <= continuous
    assert optional & continuous == {"Sampler"}
    categorical = labels_of(make("categorical", ["Forest", "River"]))
    assert optional <= categorical
    untold = labels_of(make("categorical", ["Forest", "River"], label_dropout=0))
    assert optional & untold == optional - {"Guidance"}


def event(page: Any, name: str) -> Any:
    """What the first button of this name does."""
    (button, *_) = (b for b in page.blocks.values() if getattr(b, "value", None) == name)
    targets = page.fns.values()
    return next(one for one in targets if (button._id, "click") in one.targets)


def test_a_mistake_is_a_message_and_buttons_share_a_queue() -> None:
    page = demo_page({"a": make(class_names=["Forest", "River"])})
    draw = event(page, "Draw")
    assert {draw.concurrency_id, event(page, "Walk between seeds").concurrency_id} == {"model"}
    defaults = [component.value for component in draw.inputs]
    values = dict(zip([component.label for component in draw.inputs], defaults, strict=True))
    few = {**values, "Steps": 2, "Number of pictures": 2}
    pictures, facts = draw.fn(*few.values())
    assert len(pictures) == 2
    assert facts.startswith("2 pictures")
    with pytest.raises(gr.Error, match="whole number as seed") as raised:
        draw.fn(*{**few, "Seed": -1.5}.values())
    assert not raised.value.print_exception


def test_pixels_have_a_page_too() -> None:
    torch.manual_seed(0)
    network = UNet(None, None, 8, (1,), 1)
    model = ContinuousDiffusion(PixelCodec(), network, GaussianProcess(), 16)
    (picture,), facts = Actions(model.eval()).draw(1, **STEPS)
    assert picture.size == (16, 16)
    assert facts.startswith("1 picture of 16×16 pixels, in ")
