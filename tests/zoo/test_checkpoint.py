from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from entries import train

from lit_mbldm.entries.about import About, Figure
from lit_mbldm.entries.checkpoint import CHECKPOINT_KEY
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps of training."""
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    model = tiny.continuous()
    model.training_config = {"trainer": {"max_steps": 2}}
    train(model, path)
    return path


def test_a_checkpoint_becomes_the_model_it_was_made_of(trained: Path) -> None:
    expected = torch.load(trained, weights_only=True)
    model = load_pretrained(trained)
    assert describe(model) == expected[CHECKPOINT_KEY]["model"]
    state = model.state_dict()
    assert state.keys() == expected["state_dict"].keys()
    assert all(torch.equal(state[name], value) for name, value in expected["state_dict"].items())
    assert not any(part.training for part in model.modules())
    assert model.about.config == {"trainer": {"max_steps": 2}}
    assert model.about.steps == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(trained: Path, tmp_path: Path, share: float) -> None:
    path, data = tmp_path / "cut.ckpt", trained.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"cut\.ckpt is no checkpoint") as caught:
        load_pretrained(path)
    assert "lightning fit" in str(caught.value)


def test_pickled_code_is_never_run_and_no_advice_to_run_it_is_given(
    trained: Path, tmp_path: Path
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    good = torch.load(trained, weights_only=True)
    for content in (
        {"state_dict": Payload()},
        {**good, "callbacks": Payload()},
        {**good, CHECKPOINT_KEY: {**good[CHECKPOINT_KEY], "model": Payload()}},
        Payload(),
    ):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match=r"evil\.ckpt.*never loaded") as caught:
                load_pretrained(path)
            assert "weights_only" not in str(caught.value)
    assert not marker.exists()


HEAD = "denoiser.head.bias"


# what to put where; "" takes away
CHANGES: list[tuple[str, Any, str]] = [
    (CHECKPOINT_KEY, "", "is no checkpoint of lit_mbldm"),
    ("state_dict", "", "is no checkpoint"),
    ("state_dict", [torch.zeros(4)], "is no checkpoint"),
    (f"{CHECKPOINT_KEY}/model", [1], "is no checkpoint"),
    (f"{CHECKPOINT_KEY}/config", ["a"], "Expected facts"),
    (f"{CHECKPOINT_KEY}/model/init_args", {1: 2}, "cannot be built"),
    (f"{CHECKPOINT_KEY}/model/class_path", "torch.nn.Linear", "Only classes inside lit_mbldm"),
    (f"{CHECKPOINT_KEY}/model/init_args/codec", "org/codec", "must hold its codec"),
    (f"state_dict/{HEAD}", [0.0] * 4, "is no checkpoint"),
    (f"state_dict/{HEAD}", torch.zeros(5), f"{HEAD}: expected .*(4,).*got .*(5,)"),
    (f"state_dict/{HEAD}", "", f"{HEAD}: .* got none"),
    ("state_dict/7", torch.zeros(1), "7: expected none"),
]


@pytest.mark.parametrize(("place", "value", "reason"), CHANGES)
def test_what_does_not_fit_is_named(
    trained: Path, tmp_path: Path, place: str, value: Any, reason: str
) -> None:
    checkpoint = inner = torch.load(trained, weights_only=True)
    *outer, last = place.split("/")
    for key in outer:
        inner = inner[key]
    inner[last] = value
    if isinstance(value, str) and not value:
        del inner[last]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=reason) as caught:
        load_pretrained(tmp_path / "other.ckpt")
    assert str(tmp_path / "other.ckpt") in str(caught.value)


def test_an_entry_s_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    save_entry(tiny.codec(), tmp_path)
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(InputError, match=r"is no checkpoint.*or an entry's folder"):
            load_pretrained(tmp_path / name)


def test_training_forgets_what_was_said_of_the_former_weights(tmp_path: Path) -> None:
    model = tiny.continuous()
    vars(model)["about"] = About(steps=1234, figures=(Figure("FID", 12.5),))
    model.training_config = {"seed_everything": 2}
    train(model, tmp_path / "last.ckpt")
    again = load_pretrained(tmp_path / "last.ckpt")
    assert again.about == About(config={"seed_everything": 2}, steps=2)


def test_a_command_that_an_older_checkpoint_kept_is_not_told(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["command"] = "lightning fit --trainer.logger.init_args.key sesame"
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert load_pretrained(tmp_path / "old.ckpt").about.command is None
