"""Every command in README and docs is read by its own parser and, but for those in READ, run small.

The commands of a document run in its order, in a folder with what they name: what one makes the
next ones use. The scripts of docs/scaling.md are run by tests/training/test_cluster.py, and the
tutorial by tests/examples.
"""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lit_mbldm
from lit_mbldm.cli import main
from lit_mbldm.cli.trainer_help import TRAINER_VERBS
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    DiffusionModule,
    Refiner,
)
from lit_mbldm.zoo import load_pretrained

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
OTHERS = (
    "pip",
    "pre-commit",
    "pytest",
    "python",
    "hf",
    ".ci/run",
)  # not ours: what they name is there
# what is not run, but read by its own parser, and why
READ = {
    r"--download": "fetches LSUN",
    r"^lit-mbldm (push|pull)|org/my-model": "talks to the Hub; tests/zoo has one",
    r"^lit-mbldm demo": "serves until it is stopped; tests/demo uses the page",
    r"--onnx": "needs other packages; tests/zoo/test_onnx_files.py has them",
    r"^lit-mbldm train": "trains for minutes; tests/cli/test_cli.py does",
    r"church_cat": "needs LSUN and a GPU",
    r"^lightning test": "needs Inception's weights; tests/training/test_scores.py has others",
}
SMALL = """
trainer:
  {max_steps: 2, limit_val_batches: 0, accelerator: cpu, precision: 32-true,
   enable_model_summary: false, enable_progress_bar: false, callbacks: [
    {class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_last: true}}]}
"""
FEWER = {  # for each verb, words that come last and win
    "fit": "--config small.yaml --data.num_workers 0 --data.batch_size 2",
    "predict": "--samples.num_images 2 --samples.options.steps 2 --samples.out predicted",
    "sample": "--steps 2 -n 4",
    "edit": "--steps 2 -n 2",
}
RUN = "runs/own64/version_0/checkpoints/last.ckpt"
NAMED = {  # in a command, and what it means there
    "--config CONFIG --ckpt_path last.ckpt": f"--config own64 --ckpt_path {RUN}",
    "eurosat64_few_steps.yaml": "eurosat64_few_steps.yaml --data.train SHARDS",
}


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def holding(language: str) -> list[Path]:
    return [one for one in DOCUMENTS if blocks(one, language)]


def commands(document: Path) -> list[str]:
    """The commands of a document, one by one, without comments, on what is there."""
    scripts = [text for text in blocks(document, "bash") if not text.startswith("#!")]
    lines = "".join(scripts).replace("\\\n", " ").splitlines()
    plain = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    for name, meant in NAMED.items():
        plain = [re.sub(name, meant, line) for line in plain]
    return [one.strip() for line in plain for one in line.split("'&&'") if one.strip()]


def read(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command's own parser read its arguments, and no more."""
    if words[0] in TRAINER_VERBS:
        words = [*words, "--print_config"]
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(*given: Any) -> None:
        parse(*given)
        sys.exit()

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(SystemExit) as stopped:
            main(words)
    assert stopped.value.code in (0, None), (words, stopped.value.code)


def model(of_codes: bool = False) -> DiffusionModule:
    torch.manual_seed(0)
    network, kind = UNet(None, None, 8, (1,), 1), ContinuousDiffusion
    process: Any = GaussianProcess()
    if of_codes:
        kind, process = CategoricalDiffusion, CategoricalProcess()
    return kind("opq-32-8-8", network, process, 32, class_names=["Forest", "River", "Kiwi"]).eval()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the documents name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    coarse = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
    for number, image in enumerate(coarse):
        folder = tmp_path / "PHOTOS" / ("Forest", "River")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((208, 208)).save(folder / f"{number}.png")
    for name in ("photo.png", "photo.jpg", "other.png"):
        Image.fromarray(coarse[0]).resize((32, 32)).save(tmp_path / name)
    mask = np.zeros((32, 32), np.uint8)
    mask[10:20, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    figures = [{"metric": "FID", "value": 3.5, "data": "some", "command": "lightning test"}]
    (tmp_path / "scores.json").write_text(json.dumps(figures))
    main(["shards", "PHOTOS", "SHARDS", "--size", "64"])
    for name in ("last.ckpt", "earlier.ckpt", "runs/PHOTOS_64/version_0"):
        save_entry(model(), tmp_path / name)
    save_entry(model(of_codes=True), tmp_path / "codes.ckpt")
    save_entry(Refiner("opq-32-8-8", RefinerUNet(8, (1,), 1)), tmp_path / "refiner.ckpt")
    return tmp_path


@pytest.mark.parametrize("document", holding("bash"), ids=lambda path: path.stem)
def test_every_command_is_read_by_its_parser(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])
    monkeypatch.chdir(ROOT)
    for command in commands(document):
        program, *words = shlex.split(command)
        if program in OTHERS:
            assert all(
                (ROOT / word).exists() for word in words if word.startswith(("tests/", "examples/"))
            )
            continue
        assert program in ("lightning", "lit-mbldm"), command
        read(words, monkeypatch)


def test_what_is_not_run_is_still_there() -> None:
    every = [command for document in DOCUMENTS for command in commands(document)]
    assert not [kind for kind in READ if not any(re.search(kind, one) for one in every)]


@pytest.mark.slow
@pytest.mark.parametrize("document", holding("bash"), ids=lambda path: path.stem)
def test_commands_run_in_order(document: Path, here: Path) -> None:
    if document.stem == "codecs":  # whose codec is that of the guide
        save_entry(load_pretrained("jpq-48"), here / "my-codec")
    for command in commands(document):
        program, *words = shlex.split(command)
        if program in OTHERS or any(re.search(kind, command) for kind in READ):
            continue
        fewer = "" if "--like" in command else FEWER.get(words[0], "")
        print(f"$ {command} {fewer}")
        main([*words, *fewer.split()])


@pytest.mark.parametrize("document", holding("python"), ids=lambda path: path.stem)
def test_python_runs_in_order(document: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: Any) -> Any:
        return load_pretrained(name) if name.startswith(("jpq", "opq", "pixels")) else model()

    for module in (lit_mbldm, lit_mbldm.zoo):
        monkeypatch.setattr(module, "load_pretrained", load, raising=False)
    images = torch.randint(0, 256, (1, 3, 32, 32)).byte()
    known = {"images": images, "mask": images[0, 0] > 200, "load_pretrained": load}
    for text in blocks(document, "python"):
        exec(text, known)
