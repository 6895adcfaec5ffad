import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from entries import ABOUT, FILES
from loopback_faults import Fault
from loopback_hub import Hub
from PIL import Image
from tiny import categorical, refiner

from lit_mbldm.cli import main
from lit_mbldm.entries.about import About
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.pictures import grid, to_pil
from lit_mbldm.zoo import list_pretrained, load_pretrained

Modules = dict[str, Any]
Folders = dict[str, Path]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A categorical model's entry without card and picture."""
    save_entry(categorical(), tmp_path / "made", About())
    return tmp_path / "made"


def export(made: Path, out: Path, *options: str) -> dict[str, object]:
    main(["export", str(made), str(out), "--steps", "3", *options])
    return json.loads((out / "config.json").read_text(encoding="utf-8"))["about"]


def test_export_states_what_it_is_told(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"fid": 12.0, "kid": 0.03, "precision": 0.5, "recall": 0.25, "rfid": None,
              "num_images": 500, "options": {"steps": 3, "eta": None},
              "reference": "training images", "reference_images": 400}  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    about = export(
        made, tmp_path / "out", "--license", "cc0-1.0", "--data", "org/shirts", "--terms", "CC0",
        "--figures", str(tmp_path / "scores.json"), "--temperature", "0.5",
        "--guidance", "1", "--guidance-interval", "0.2", "0.8",
    )  # fmt: skip
    assert "out" in capsys.readouterr().out
    guided = {"guidance": 1.0, "guidance_interval": [0.2, 0.8]}
    assert about["sampling"] == {"steps": 3, "temperature": 0.5, **guided}
    assert [figure["metric"] for figure in about["figures"]] == [
        "FID", "KID × 1000", "Precision", "Recall"
    ]  # fmt: skip
    assert about["figures"][1]["value"] == 30.0
    assert about["figures"][1]["data"] == "500 samples (steps 3) against 400 training images"
    assert (about["license"], about["data"], about["terms"]) == ("cc0-1.0", "org/shirts", "CC0")


def test_sample_takes_what_suits_the_model(made: Path, tmp_path: Path) -> None:
    export(made, tmp_path / "out", "--temperature", "0")
    grids = {}
    for name, options in {"default": [], "same": ["--steps", "3", "--temperature", "0"],
                          "other": ["--temperature", "2"]}.items():  # fmt: skip
        grids[name] = tmp_path / f"{name}.png"
        main(["sample", str(tmp_path / "out"), "-n", "2", "--out", str(grids[name]), *options])
    assert grids["default"].read_bytes() == grids["same"].read_bytes()
    assert grids["default"].read_bytes() != grids["other"].read_bytes()
    drawn = to_pil(grid(load_pretrained(tmp_path / "out").sample(2)))
    assert drawn.tobytes() == Image.open(grids["default"]).tobytes()


def test_push_pull_and_search(
    made: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    export(made, tmp_path / "out", "--license", "cc0-1.0")
    push = ["push", str(tmp_path / "out"), "org/shirts"]
    main([*push, "--dry-run"])
    told = capsys.readouterr()
    assert re.search(r"^new +[\d,]+  model.safetensors$", told.out, re.MULTILINE)
    assert "Nothing was sent" in told.out
    assert "does not state: Data, Terms of the data." in told.err
    assert not hub.asked("POST .*/(create|commit)")
    main(push)
    assert f"Commit {hub.head('org/shirts')}" in capsys.readouterr().out
    main(push)
    assert "nothing was sent" in capsys.readouterr().out
    main(["pull", "org/shirts@main", str(tmp_path / "copy")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "copy")
    for path in (tmp_path / "out").iterdir():
        if path.name != "README.md":
            assert (tmp_path / "copy" / path.name).exists()
    hub.add_repo("org/card-shirts")
    hub.commit("org/card-shirts", {"README.md": b"---\nlibrary_name: diffusers\n---\n"})
    for words in (["shirt"], []):
        main(["zoo", "--search", *words])
        assert re.fullmatch("org/shirts .*license:cc0-1.0\n", capsys.readouterr().out)
    main(["zoo", "--search", "trousers"])
    assert "has no lit_mbldm model named trousers" in capsys.readouterr().out
    main(["sample", "org/shirts", "-n", "1", "--out", str(tmp_path / "grid.png")])
    again = load_pretrained(tmp_path / "copy").sample(1, steps=3)
    assert torch.equal(again, load_pretrained("org/shirts").sample(1, steps=3))


def test_push_takes_branch_privacy_and_title(made: Path, hub: Hub) -> None:
    options = ["--revision", "trial", "--private", "--message", "Epoch 90"]
    main(["push", str(made), "org/shirts", *options])
    assert hub.files("org/shirts", "trial").keys() - {".gitattributes"} == FILES
    repository = hub.repository("org/shirts")
    assert repository.private
    titles = {b: [c.title for c in repository.history(b)] for b in repository.branches}
    assert titles == {"main": ["initial commit"], "trial": ["Epoch 90", "initial commit"]}


def test_a_search_without_the_network_fails_at_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.drop_before("/api/models", times=None)
    with pytest.raises(SystemExit, match="cannot be reached"):
        main(["zoo", "--search"])
    assert len(hub.requests) == 1
    hub.faults.insert(0, Fault("/api/models", lambda exchange: time.sleep(2) or exchange.respond()))
    monkeypatch.setattr("lit_mbldm.hub.listing._SECONDS", 0.1)
    with pytest.raises(SystemExit, match="cannot be reached"):
        main(["zoo", "--search"])


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["zoo"]])
def test_what_needs_no_torch_does_not_wait_for_it(words: list[str]) -> None:
    script = (
        "import sys, atexit; from lit_mbldm.cli import main;"
        " atexit.register(lambda: print('torch' in sys.modules)); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("\nFalse\n")


def test_zoo_lists_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    main(["zoo"])
    told = capsys.readouterr().out
    assert "opq-32-8-8" in told
    assert told.count("licence of the weights: ") == len(list_pretrained())
    assert "PSNR (dB) 27.72 (Kodak, 24 images)" in told


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pull", "opq-32-8-8"], "org/repo"),
        (["pull", "org/none"], "no repository org/none"),
        (["pull", "org/model@a", "--revision", "b"], "another revision"),
        (["push", "no-model", "org/x"], "nor a model"),
        (["push", "opq-32-8-8", "org/x@main"], "A branch is named as the revision"),
        (["export", "opq-32-8-8", "OUT", "--figures", "none.json"], "none.json"),
        (["export", "opq-32-8-8", "OUT", "--refiner", "opq-32-8-8"], "expected a Refiner"),
    ],
)
def test_mistakes_are_named(
    args: list[str], words: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert words in str(stop.value)
    assert list(tmp_path.glob("OUT")) == []


def test_a_refiner_s_network_becomes_a_codec_s_decoder(
    modules: Modules, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "decoder"
    main(["codec", "decoder", str(folders["refiner"]), str(out)])
    assert "OPQ-4-2-2+decoder, the same codes as OPQ-4-2-2" in capsys.readouterr().out
    codec, refiner = load_pretrained(out), modules["refiner"]
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    codes = codec.encode(images)
    plain = refiner.codec.decode(codes)
    assert torch.equal(codec.decode(codes, plain=True), plain)
    assert torch.equal(codec.decode(codes), refiner.refine(plain))
    assert codec.about.steps == ABOUT.steps
    with pytest.raises(SystemExit, match="already holds"):
        main(["codec", "decoder", str(folders["refiner"]), str(out)])
    with pytest.raises(SystemExit, match="expected a Refiner"):
        main(["codec", "decoder", str(folders["codec"]), str(tmp_path / "other")])


def test_a_refiner_that_learned_from_noise_is_no_decoder(tmp_path: Path) -> None:
    made = refiner()
    made.noise_range = (0.0, 0.5)
    save_entry(made, tmp_path / "refiner")
    with pytest.raises(SystemExit, match=r"noise_range \[0, 0\].* got \[0.0, 0.5\]"):
        main(["codec", "decoder", str(tmp_path / "refiner"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
