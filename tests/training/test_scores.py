"""`lightning test` and `lightning predict`, by the real commands."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch  # its log handler must hold a stream that outlives a test
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from lit_mbldm.cli import main
from lit_mbldm.data import ShardDataModule
from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.fidelity import FeatureSet, fid, fidelity
from lit_mbldm.pictures import save
from lit_mbldm.processes import BernoulliProcess, CategoricalProcess
from lit_mbldm.training import (
    BernoulliDiffusion,
    CategoricalDiffusion,
    SampleOptions,
    ScoreSamples,
)
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.zoo import load_pretrained

EXTRACTOR = """
import torch

class Blocks(torch.nn.Module):
    num_features = 12

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
"""
CONFIG = """
seed_everything: 0
model:
  class_path: lit_mbldm.training.ContinuousDiffusion
  init_args:
    codec: opq-32-8-8
    image_size: 16
    learning_rate: 0.1
    denoiser:
      class_path: lit_mbldm.denoisers.UNet
      init_args: {{in_channels: 6, out_channels: 6, base_channels: 8, channel_multipliers: [1],
                   blocks_per_level: 1}}
    process: {{class_path: lit_mbldm.processes.GaussianProcess}}
data:
  class_path: lit_mbldm.data.ShardDataModule
  init_args: {{train: {folder}/shards, batch_size: 3}}
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {folder}
  callbacks:
    - class_path: lightning.pytorch.callbacks.EMAWeightAveraging
      init_args: {{decay: 0.5, use_buffers: false}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {folder}, save_last: true}}
score: {{num_images: 11, batch_size: 2}}
"""
STEPS = ["--score.options.steps=3"]


@dataclass(frozen=True)
class Run:
    """A trained model and the data it was trained on."""

    folder: Path
    config: Path
    checkpoint: Path

    def arguments(self, verb: str, *more: str) -> list[str]:
        files = [f"--config={self.config}", f"--ckpt_path={self.checkpoint}"]
        features = ["--score.features=blocks_for_tests.Blocks"] if verb == "test" else []
        return [verb, *files, *features, *more]

    def test(self, out: Path, *more: str, processes: int = 1) -> dict[str, Any]:
        """Run `lightning test` into a folder and return its scores."""
        places = [f"--score.cache={out / 'cache'}", f"--trainer.default_root_dir={out}"]
        self.run("test", *STEPS, *places, *more, processes=processes)
        found: dict[str, Any] = json.loads((out / "scores.json").read_text())
        return found

    def run(self, verb: str, *more: str, processes: int = 1) -> None:
        arguments = self.arguments(verb, *more)
        if processes == 1:
            main(arguments)
            return
        ran = subprocess.run(
            [sys.executable, "-m", "lit_mbldm", *arguments,
             f"--trainer.devices={processes}", "--trainer.strategy=ddp"],
            capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "blocks_for_tests.py").write_text(EXTRACTOR)
    sys.path.insert(0, str(folder))
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16)).save(folder / "photos" / f"{i:02d}.png")
    main(["shards", str(folder / "photos"), str(folder / "shards"), "--size", "16", "--val", "0.4"])
    main(["encode", str(folder / "shards"), str(folder / "codes"), "--codec", "opq-32-8-8"])
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lit-mbldm"])
        main(["fit", "--config", str(folder / "config.yaml")])
    return Run(folder, folder / "config.yaml", folder / "last.ckpt")


def blocks(images: Tensor) -> Tensor:
    from blocks_for_tests import Blocks  # type: ignore[import-not-found]

    features: Tensor = Blocks()(images)
    return features


def held_out_images(run: Run) -> Tensor:
    data = ShardDataModule(str(run.folder / "shards" / "val"))
    return torch.cat([batch["images"] for batch in data.training_set().batches])


def test_the_scores_are_those_of_the_averaged_model_s_samples(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run.test(tmp_path)
    weights = torch.load(run.checkpoint, weights_only=True)
    name = "denoiser.head.weight"
    assert not torch.equal(weights["state_dict"][name], weights["current_model_state"][name])
    model = load_pretrained(run.checkpoint)
    assert torch.equal(model.state_dict()[name], weights["state_dict"][name])
    real = held_out_images(run)
    expected = asdict(fidelity(blocks(real), blocks(model.sample(11, steps=3))))
    decoded = model.codec.decode(model.codec.encode(real))
    expected["rfid"] = fid(FeatureSet.of(blocks(real)), FeatureSet.of(blocks(decoded)))
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert found["num_images"] == 11
    assert found["reference_images"] == len(real) < 30
    assert found["checkpoint"] == str(run.checkpoint)
    printed = capsys.readouterr().out
    drawn = "11 samples (steps 3 sampler ddpm seed 0)"
    assert f"{drawn} against {len(real)} held-out images" in printed
    assert f"| {expected['fid']:.3f} | {1000 * expected['kid']:.1f} ± " in printed
    with Image.open(tmp_path / "test_samples.png") as picture:
        assert picture.size == (4 * 18 + 2, 3 * 18 + 2)


def test_the_guide_is_told(run: Run, tmp_path: Path) -> None:
    guide = str(run.checkpoint)
    options = ["--score.options.guidance=1.5", f"--score.options.guide={guide}"]
    told = run.test(tmp_path, *options)["options"]
    assert told == {
        "steps": 3, "sampler": "ddpm", "guidance": 1.5, "seed": 0,
        "refiner": None, "label": None, "guide": guide, "size": None,
    }  # fmt: skip


def test_code_shards_are_decoded_unless_image_shards_are_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = f"--data.train={run.folder / 'codes'}"
    found = run.test(tmp_path / "codes", codes)
    model = load_pretrained(run.checkpoint)
    real, samples = held_out_images(run), model.sample(11, steps=3)
    decoded = model.codec.decode(model.codec.encode(real))
    expected = fidelity(blocks(decoded), blocks(samples))
    assert found["fid"] == pytest.approx(expected.fid, abs=1e-6)
    assert found["rfid"] is None
    printed = capsys.readouterr().out
    assert f"against {len(real)} decoded held-out codes" in printed
    assert "--score.reference" in printed
    shards = f"--score.reference={run.folder / 'shards'}"
    found = run.test(tmp_path / "images", codes, shards, "--score.max_reference=7")
    assert found["reference_images"] == 7
    expected = fidelity(blocks(real[:7]), blocks(samples))
    assert found["fid"] == pytest.approx(expected.fid, abs=1e-6)
    assert found["rfid"] is not None


def test_a_model_that_copies_is_found_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, image in enumerate(load_pretrained(run.checkpoint).sample(11, steps=3)):
        save(image, tmp_path / "photos" / f"{i}.png")
    main(["shards", str(tmp_path / "photos"), str(tmp_path / "shards"), "--size", "16"])
    copied = f"--data.train={[str(folder / 'shards') for folder in (run.folder, tmp_path)]}"
    held_out = f"--score.reference={run.folder / 'shards'}"  # whose validation part it is
    found = run.test(tmp_path, copied, held_out)
    assert found["copies"] == 1
    assert "| 100.0% (held-out: " in capsys.readouterr().out
    assert run.test(tmp_path)["copies"] < 1
    with Image.open(tmp_path / "nearest.png") as picture:
        assert picture.width == 6 * 18 + 2  # three pairs a row


def test_what_has_no_held_out_images(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = f"--data.train={run.folder / 'shards' / 'val'}"
    assert "--val 0.1" in fails(run.arguments("test", trained), capsys)
    crops = {"class_path": "lit_mbldm.data.CropDataModule", "init_args": {"crop_size": 16}}
    found = run.test(tmp_path, f"--data={json.dumps(crops)}", "--score.max_reference=9")
    assert found["reference"] == "crops of the training photographs"
    assert found["copies"] is None


def test_two_processes_give_the_same_scores(run: Run, tmp_path: Path) -> None:
    """11 samples and as many held-out images as come: the shares of the ranks differ in size."""
    folders = [tmp_path / "one", tmp_path / "two"]
    one, two = (run.test(out, processes=n) for n, out in enumerate(folders, start=1))
    for key in ("fid", "kid", "kid_std", "precision", "recall", "rfid", "copies"):
        assert two[key] == pytest.approx(one[key], abs=1e-6), key
    for seen in (
        lambda out: (out / "test_samples.png").read_bytes(),
        lambda out: (out / "nearest.png").read_bytes(),
        lambda out: sorted(os.listdir(out / "cache")),
    ):
        assert seen(folders[0]) == seen(folders[1])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_predict_writes_each_sample_once(run: Run, tmp_path: Path, processes: int) -> None:
    out = tmp_path / "out"
    run.run("predict", "--samples.num_images=7", "--samples.batch_size=2", f"--samples.out={out}",
            "--samples.options={steps: 3, seed: 5}", processes=processes)  # fmt: skip
    assert sorted(os.listdir(out)) == [f"{i:06d}.png" for i in range(7)]
    expected = load_pretrained(run.checkpoint).sample(7, steps=3, seed=5)
    for i, image in enumerate(expected):
        found = np.asarray(Image.open(out / f"{i:06d}.png"))
        assert np.array_equal(found, image.permute(1, 2, 0).numpy())


def test_training_s_resolved_config_is_left_alone_and_serves_both_verbs(
    run: Run, tmp_path: Path
) -> None:
    resolved = run.folder / "resolved_config.yaml"
    before = resolved.read_bytes()
    other = Run(run.folder, resolved, run.checkpoint)
    out = [f"--samples.out={tmp_path / 'out'}", "--samples.num_images=1"]
    other.run("predict", "--samples.options.steps=1", *out)
    logger = ["CSVLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.logger.name=log"]
    other.run("test", *STEPS, "--score.num_images=4", f"--score.cache={tmp_path / 'cache'}",
              "--trainer.logger", *logger)  # fmt: skip
    assert resolved.read_bytes() == before
    (folder,) = (tmp_path / "log").iterdir()
    names = (folder / "metrics.csv").read_text().splitlines()[0]
    for name in ("fid", "kid", "kid_std", "precision", "recall", "rfid", "copies"):
        assert f"test/{name}" in names
    assert (folder / "scores.json").exists()


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code not in (0, None)
    assert "Traceback" not in capsys.readouterr().err
    return str(stopped.value.code)


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_a_checkpoint_is_asked_for_and_must_fit(
    verb: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, features = f"--config={run.config}", run.arguments(verb)[3:]
    assert "--ckpt_path" in fails([verb, config, *features], capsys)
    assert "none.ckpt" in fails([verb, config, "--ckpt_path=none.ckpt", *features], capsys)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    text = f"--ckpt_path={tmp_path / 'text.ckpt'}"
    assert "no checkpoint" in fails([verb, config, text, *features], capsys)
    out = [f"--samples.out={tmp_path}"] if verb == "predict" else []
    message = fails(run.arguments(verb, "--model.denoiser.base_channels=16", *out), capsys)
    assert "does not fit" in message
    assert message.count("\n") < 8


def test_a_refiner_is_not_scored(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = yaml.safe_load(run.config.read_text())
    keys["model"] = {
        "class_path": "lit_mbldm.training.Refiner",
        "init_args": {"codec": "opq-32-8-8", "network": {"class_path": "torch.nn.Identity"}},
    }
    (tmp_path / "refiner.yaml").write_text(yaml.safe_dump(keys))
    other = Run(run.folder, tmp_path / "refiner.yaml", run.checkpoint)
    assert "validate" in fails(other.arguments("test"), capsys)
    assert "validate" in fails(other.arguments("predict"), capsys)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--score.num_images=3", "at least 4"),
        ("--score.options.steps=9999", "steps from 1 to 1000"),
        ("--score.options.temperature=0.5", "takes no temperature"),
        ("--score.batch_size=0", "batch_size of at least 1"),
        ("--score.no_such_option=1", "no_such_option"),
        ('--score.features={"class_path": "lit_mbldm.metrics.inception.InceptionFeatures",'
         ' "init_args": {"weights": "nowhere.pth"}}', "nowhere.pth"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(
    option: str, word: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = f"--score.cache={tmp_path}"
    assert word in fails(run.arguments("test", cache, option), capsys)


def test_predict_goes_on_by_number(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def predict(out: str, count: int) -> dict[str, bytes]:
        main(run.arguments("predict", f"--samples.out={tmp_path / out}",
                           f"--samples.num_images={count}", "--samples.batch_size=2",
                           "--samples.options.steps=2"))  # fmt: skip
        return {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}

    whole = predict("whole", 7)
    predict("killed", 5)
    (tmp_path / "killed" / "000002.png").unlink()
    (tmp_path / "killed" / ".000005.png.1.tmp").touch()
    kept = (tmp_path / "killed" / "000003.png").stat().st_mtime_ns
    assert predict("killed", 7) == whole
    assert predict("killed", 7) == whole  # nothing is left to draw
    assert (tmp_path / "killed" / "000003.png").stat().st_mtime_ns == kept
    assert "7 samples: " in capsys.readouterr().out.splitlines()[-1]
    same_folder = run.arguments("predict", f"--samples.out={tmp_path / 'whole'}")
    for other in ("seed=1", "size=[8, 8]"):
        told = fails([*same_folder, f"--samples.options.{other}"], capsys)
        assert "already holds pictures" in told


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_a_signal_ends_the_verbs_that_draw(run: Run, tmp_path: Path, verb: str) -> None:
    group = {"test": "score", "predict": "samples"}[verb]
    endless = [f"--{group}.num_images=100000", f"--{group}.options.steps=5"]
    places = {"test": [f"--score.cache={tmp_path}"], "predict": [f"--samples.out={tmp_path}"]}
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_mbldm", *run.arguments(verb, *endless, *places[verb])],
        env={**os.environ, "PYTHONPATH": str(run.folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    printed, _ = process.communicate(timeout=5)
    assert process.returncode == os.EX_TEMPFAIL
    assert "SIGTERM: left at once" in printed


def test_in_python_the_numbers_carry_the_training_data(
    run: Run, quiet: dict[str, Any], tmp_path: Path
) -> None:
    from blocks_for_tests import Blocks

    model = load_pretrained(run.checkpoint)
    scores = ScoreSamples(5, 2, SampleOptions(steps=2), Blocks(), cache=str(tmp_path / "cache"))
    trainer = lightning.pytorch.Trainer(default_root_dir=tmp_path, callbacks=[scores], **quiet)
    data = ShardDataModule(str(run.folder / "shards"), batch_size=4)
    (found,) = trainer.test(model, scores.numbers(data), verbose=False)
    expected = fidelity(blocks(held_out_images(run)), blocks(model.sample(5, steps=2)))
    assert found["test/fid"] == pytest.approx(expected.fid, abs=1e-6)
    with pytest.raises(InputError, match="numbers"):
        trainer.test(model, scores.numbers(), verbose=False)


@pytest.mark.parametrize("kind", ["bits", "categories"])
def test_a_model_of_codes_tells_how_many_bits_a_patch_it_needs(
    kind: str, run: Run, quiet: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 48 where the network has learned nothing yet."""
    from blocks_for_tests import Blocks

    parts: Any = "opq-32-8-8", UNet(None, None, 8, (1,), 1)
    model: DiffusionModule = (
        BernoulliDiffusion(*parts, BernoulliProcess(8), 16)
        if kind == "bits"
        else CategoricalDiffusion(*parts, CategoricalProcess(8, "cosine", likelihood=True), 16)
    )
    scores = ScoreSamples(5, 2, SampleOptions(steps=2), Blocks(), cache=str(tmp_path / "cache"))
    trainer = lightning.pytorch.Trainer(default_root_dir=tmp_path, callbacks=[scores], **quiet)
    data = ShardDataModule(str(run.folder / "shards"), batch_size=4)
    (found,) = trainer.test(model, scores.numbers(data), verbose=False)
    assert 0 < found["test/bits_std"] < 5
    assert abs(found["test/bits"] - 48) < 4 * found["test/bits_std"]
    printed = f"variational bound: {found['test/bits']:.2f} ± {found['test/bits_std']:.2f}"
    assert printed in capsys.readouterr().out
