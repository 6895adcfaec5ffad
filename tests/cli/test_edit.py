"""`lit-mbldm edit`: the command does what the model's methods do, and shows before and after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.images import fit_square
from lit_mbldm.pictures import grid, save, to_batch
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion

STEPS = "--steps 2 --seed 3"


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes `model`, of 16×16 images and two classes, `photo.png` and `mask.png` of 24×32."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    parts: Any = "opq-32-8-8", UNet(None, None, 8, (1,), 1), GaussianProcess(), 16
    made = ContinuousDiffusion(*parts, class_names=["Forest", "River"]).eval()
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_entry(made, Path("model"))
    for name in ("photo", "other"):
        save(torch.randint(0, 256, (3, 24, 32)).byte(), Path(f"{name}.png"))
    mask = Image.new("L", (32, 24))
    mask.paste(255, (16, 12, 32, 24))
    mask.save("mask.png")
    return made


def middle(name: str) -> torch.Tensor:
    """A picture's middle at the model's size."""
    return to_batch(fit_square(Image.open(name).convert("RGB"), 16))


@pytest.mark.parametrize(
    ("flags", "edit"),
    [
        ("photo.png --strength 0.5 -n 2", lambda m: m.vary(middle("photo.png"), 0.5, 2)),
        (
            "photo.png --to other.png -n 3 --label River",
            lambda m: m.interpolate(
                middle("photo.png"), middle("other.png"), 3, "images", label="River"
            ),
        ),
        (
            "photo.png --mask mask.png -n 2 --resamplings 2",
            lambda m: m.inpaint(
                middle("photo.png"), middle("mask.png")[:, 0] > 127, 2, resamplings=2
            ),
        ),
        (
            "photo.png --canvas 24x40 -n 1",
            lambda m: m.outpaint(middle("photo.png"), (24, 40)),
        ),
        ("--seeds 1 2 -n 3", lambda m: m.interpolate(1, 2, 3)),
        ("--labels Forest 1 -n 3", lambda m: m.interpolate("Forest", 1, 3, "labels")),
    ],
)
def test_each_edit_is_the_model_s(flags: str, edit: Callable[..., Any], model: Any) -> None:
    main(["edit", "model", *flags.split(), *STEPS.split(), "--out", "new/"])
    results = to_batch(sorted(Path("new").glob("*.png")))
    model.sampling = type(model.sampling)(steps=2)
    expected = edit(Seeded(model))
    assert torch.equal(results, expected)
    main(["edit", "model", *flags.split(), *STEPS.split()])
    row = to_batch("edited.png")[0]
    shown = grid(results, columns=len(results))
    assert torch.equal(row[:, -shown.shape[1] :, 2 - shown.shape[2] :], shown[:, :, 2:])
    before = 0 if flags.startswith("--") else results.shape[3] + 2
    assert row.shape[2] == before + shown.shape[2]


class Seeded:
    """A model whose edits take seed 3."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return lambda *told, **settings: getattr(self.model, name)(*told, seed=3, **settings)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("photo.png", "one of --mask, --strength, --canvas and --to"),
        ("photo.png --seeds 1 2", "MODEL with --seeds or --labels"),
        ("--strength 0.5", "got IMAGE None"),
        ("photo.png --canvas 24x24 --to other.png", "--canvas, --to"),
        ("photo.png --strength 1.5", "from 0 to 1"),
        ("photo.png --mask small.png", "mask of the image's size, 24×32, got 8×8"),
        ("small.png --strength 0.5", "--keep-size --canvas 16x16"),
        ("missing.png --strength 0.5", "missing.png"),
        ("model/config.json --strength 0.5", "not an image"),
        ("photo.png --canvas 8x40", "at least the image's 16×16"),
        ("photo.png --strength 0.5 --keep-size --label Sea", "no class 'Sea'"),
        ("--labels Forest Sea", "no class 'Sea'"),
        ("photo.png --strength 0.5 --out edited.jpg", "written as PNG"),
    ],
)
def test_what_cannot_be_edited_is_refused(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save("small.png")
    with pytest.raises(SystemExit) as stopped:
        main(["edit", "model", *flags.split()])
    assert message in f"{stopped.value} {capsys.readouterr().err}"
    assert not Path("edited.png").exists()
