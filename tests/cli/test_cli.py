import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import Mock

import lightning as L  # its log handler must hold a stream that outlives a test
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator
from PIL import Image

import lit_mbldm
from lit_mbldm.cli import main
from lit_mbldm.cli.data import fit_words
from lit_mbldm.cli.trainer import slow_in_half
from lit_mbldm.codecs.upscale import upscale
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.hub.listing import list_shipped
from lit_mbldm.pictures import grid, save
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion, Refiner, SampleOptions
from lit_mbldm.zoo import load_pretrained

Run: TypeAlias = Callable[[str], str]
SMALL = """
seed_everything: 0
model:
  class_path: lit_mbldm.training.{module}
  init_args:
    codec: opq-32-8-8
    image_size: 32
    denoiser:
      class_path: lit_mbldm.denoisers.UNet
      init_args: {{in_channels: 6, out_channels: {channels}, base_channels: 16,
                   channel_multipliers: [1, 2], blocks_per_level: 1}}
    process:
      class_path: lit_mbldm.processes.{process}
data:
  class_path: lit_mbldm.data.{data}
trainer:
  accelerator: cpu
  max_epochs: 1
  default_root_dir: {root}
  enable_progress_bar: false
  enable_model_summary: false
  logger: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {root}, save_last: true}}
    - class_path: lit_mbldm.training.SampleImages
      init_args: {{num_images: 4, options: {{steps: 2}}}}
"""
CROPS = "CropDataModule\n  init_args: {crop_size: 32, batch_size: 8, crops_per_epoch: 16}"


def write_config(folder: Path, kind: str, data: str = CROPS) -> Path:
    continuous = kind == "continuous"
    text = SMALL.format(
        module="ContinuousDiffusion" if continuous else "CategoricalDiffusion",
        process="GaussianProcess" if continuous else "CategoricalProcess",
        channels=6 if continuous else 1536,
        data=data,
        root=folder,
    )
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


def synthetic(height: int, width: int) -> Any:
    """A smooth image of noise, (H, W, 3) uint8."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height)))


def make_photos(folder: Path, count: int, side: int = 64) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder."""
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The folder `photos` here, of 12 photographs of 64×64."""
    return make_photos(tmp_path / "photos", 12)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns what it prints."""

    def call(command: str) -> str:
        main(command.split())
        return "".join(capsys.readouterr())

    return call


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command, which must end with a message and no traceback; returns the message."""

    def call(command: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(command.split())
        assert stopped.value.code not in (0, None)
        message = f"{stopped.value.code} {capsys.readouterr().err}"
        assert "Traceback" not in message
        return message

    return call


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_folder_to_codes_to_model_to_grid(
    kind: str, photos: Path, tmp_path: Path, run: Run
) -> None:
    run("shards photos shards --size 32")
    run("encode shards codes --codec opq-32-8-8")
    assert json.loads(Path("codes/manifest.json").read_text())["count"] == 12
    data = "ShardDataModule\n  init_args: {train: codes, val: shards, batch_size: 4}"
    told = run(f"fit --config {write_config(tmp_path, kind, data)}")
    (checkpoint,) = re.findall("Make more: lit-mbldm sample (.*?) ", told)
    assert f"in the browser: lit-mbldm demo {checkpoint}\n" in told
    for size in (1, 3):
        run(f"sample {checkpoint} -n 4 --steps 3 --seed 0 --batch-size {size} --out {size}.png")
    assert torch.equal(sheet("1.png"), sheet("3.png"))


def test_intervals_are_options_beside_a_list_of_callbacks(tmp_path: Path, run: Run) -> None:
    config = write_config(tmp_path, "continuous")
    every = config.read_text().replace("save_last: true", "save_last: true, save_top_k: -1")
    config.write_text(every)
    run(f"fit --config={config} --trainer.max_epochs=2 --checkpoint_every=3 --sample_every=2")
    saved = {path.name for path in tmp_path.glob("*.ckpt")}
    assert saved == {"epoch=1-step=3.ckpt", "last.ckpt"}
    drawn = {path.name for path in (tmp_path / "pictures").glob("samples*")}
    assert drawn == {"samples-0000002.png", "samples-0000004.png"}


@pytest.mark.parametrize(
    ("accelerator", "capabilities", "fast"),
    [
        ("cpu", "avx512_bf16 avx512_fp16 amx_bf16", True),
        ("auto", "avx512_bf16", True),
        ("cpu", "avx512_bf16 avx512_fp16", False),
        ("auto", "avx2", False),
    ],
)
def test_a_cpu_that_is_slow_in_bfloat16_trains_in_float32(
    accelerator: str,
    capabilities: str,
    fast: bool,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = dict.fromkeys(capabilities.split(), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
    used: list[L.Trainer] = []
    fit = functools.wraps(L.Trainer.fit)(lambda trainer, *args, **kwargs: used.append(trainer))
    monkeypatch.setattr(L.Trainer, "fit", fit)
    config = write_config(tmp_path, "continuous")
    options = f"--trainer.precision=bf16-mixed --trainer.accelerator={accelerator}"
    told = run(f"fit --config={config} {options}")
    assert [trainer.precision for trainer in used] == ["bf16-mixed" if fast else "32-true"]
    assert ("more slowly than float32" in told) != fast


def test_a_gpu_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    assert [slow_in_half(name) for name in ("auto", "gpu", "cuda", "cpu")] == [False] * 3 + [True]


def test_a_refiner_ends_with_its_picture_and_the_next_command(photos: Path, run: Run) -> None:
    options = "--data.crop_size=64 --data.batch_size=2 --trainer.max_steps=1"
    told = run(f"fit --config=jpq48_decoder --data.folder=photos {options}")
    (next_command,) = re.findall("Use it: lit-mbldm (.*) OUT", told)
    assert sheet("runs/jpq48_decoder/version_0/refined.png").shape[2] > 3 * 64
    run(f"{next_command} decoder")


def test_lines_of_lightning_that_tell_nothing_are_left_out(tmp_path: Path) -> None:
    """And an error begins a line of its own, though a bar was being drawn."""
    config = write_config(tmp_path, "continuous")
    keys = yaml.safe_load(config.read_text())
    keys["trainer"] |= {"enable_progress_bar": True, "enable_model_summary": True}
    keys["trainer"]["callbacks"].append({"class_path": "fails_for_tests.Fails"})
    config.write_text(yaml.safe_dump(keys))
    (tmp_path / "fails_for_tests.py").write_text(
        "import lightning, lit_mbldm.errors\n"
        "class Fails(lightning.Callback):\n"
        "    def on_train_batch_end(self, *rest):\n"
        "        raise lit_mbldm.errors.InputError('no more')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "lit_mbldm", "fit", f"--config={config}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert "Trainable params" in ran.stdout
    for noise in ("Tip", "_pytree"):
        assert noise not in ran.stdout
    assert "error: no more" in ran.stdout.split("\n")


@pytest.mark.parametrize(("quantizer", "last"), [("PQ-16-8-8", "Cr"), ("JPQ-32", "P3")])
def test_codec_fit_and_report(quantizer: str, last: str, photos: Path, run: Run) -> None:
    run(f"codec fit {quantizer} photos codec --max-patches 2000")
    assert {path.suffix for path in Path("codec").iterdir()} == {".json", ".safetensors"}
    told = run("codec report codec photos")
    assert f"{quantizer} on 12 images: 0.5 bits a pixel (1:48), PSNR" in told
    assert f"\n{last} " in told
    assert {path.name for path in Path().iterdir()} == {"photos", "codec"}  # no picture unasked
    run("codec report codec photos --picture p.png")
    assert sheet("p.png").shape[2] > 200


def test_the_command_has_three_names() -> None:
    folder = Path(sys.executable).parent
    module = [sys.executable, "-m", "lit_mbldm"]
    texts = [
        subprocess.run([*name, "--help"], capture_output=True, text=True, check=True).stdout
        for name in (module, [folder / "lightning"], [folder / "lit-mbldm"])
    ]
    assert texts[0] == texts[1] == texts[2]
    for verb in ("fit", "validate", "shards", "codec", "encode", "sample"):
        assert verb in texts[0]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_the_command_keeps_the_memory_that_it_frees() -> None:
    program = """
import ctypes, resource, sys
from lit_mbldm.cli.main import keep_memory
if sys.argv[1:]: keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(8):
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(2**26)))
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    faults = [
        int(subprocess.check_output([sys.executable, "-c", program, *words]))
        for words in ((), ("keep",))
    ]
    assert faults[1] < faults[0]


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_the_help_of_a_lightning_verb_is_a_page(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    page = capsys.readouterr().out.splitlines()
    assert len(page) < 60
    assert any(line.split()[:1] == ["quickstart"] for line in page)


def test_other_verbs_go_to_lightning_sdk_where_it_is_installed(tmp_path: Path, fails: Run) -> None:
    assert "invalid choice: 'login'" in fails("login")
    info = tmp_path / "lightning_sdk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-sdk\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nlightning = fake_sdk:run\n")
    (tmp_path / "fake_sdk.py").write_text("import sys\ndef run(): print('sdk', sys.argv[1:])\n")
    ran = subprocess.run(
        [sys.executable, "-m", "lit_mbldm", "login", "--now"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.stdout == "sdk ['login', '--now']\n"


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("image_size", "imagesize", "imagesize"),
        ("trainer:", "trianer:", "trianer"),
        (CROPS, "ShardDataModule\n  init_args: {train: 'none-*.tar'}", "none-*.tar"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(
    right: str, wrong: str, told: str, tmp_path: Path, fails: Run
) -> None:
    config = write_config(tmp_path, "categorical")
    config.write_text(config.read_text().replace(right, wrong))
    assert told in fails(f"fit --config {config}")


def test_codes_of_another_codec_stop_the_run(
    photos: Path, tmp_path: Path, run: Run, fails: Run
) -> None:
    run("codec fit OPQ-32-8-8 photos codec --max-patches 1000")
    run("shards photos shards --size 32")
    run("encode shards codes --codec codec")
    data = "ShardDataModule\n  init_args: {train: codes, batch_size: 2}"
    told = fails(f"fit --config {write_config(tmp_path, 'categorical', data)}")
    assert "lit-mbldm encode" in told


def encoded(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_encode_shares_the_work_among_processes(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(make_photos(tmp_path / "photos", 40), tmp_path / "shards", 64, shard_size=4)
    encode = "encode shards {} --codec opq-32-8-8 --workers 1"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "--master-port", "0", "-m", "lit_mbldm"]
    command += encode.format("together").split()
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(re.findall("40 images as codes in 10 shards", ran.stdout)) == 2
    assert re.search(r"encode \(process [01] of 2\)", ran.stderr)
    monkeypatch.setenv("SLURM_NTASKS", "3")
    for rank in (2, 0):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        assert "40 images as codes" in run(encode.format("slurm"))
    monkeypatch.delenv("SLURM_NTASKS")
    run(encode.format("alone"))
    assert encoded("together") == encoded("slurm") == encoded("alone")


@pytest.mark.parametrize(
    ("variables", "options", "word"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "", "RANK='2'"),
        ({"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "", "SLURM_PROCID='x'"),
        ({}, "--device nowhere", "nowhere"),
        ({}, "--workers 0", "whole number from 1"),
    ],
)
def test_encode_refuses_what_it_cannot_work_with(
    variables: dict[str, str], options: str, word: str, fails: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert word in fails(f"encode shards out --codec opq-32-8-8 {options}")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["empty", "text", "missing"])
def test_folders_without_images_are_refused(name: str, fails: Run) -> None:
    Path("empty").mkdir()
    Path("text").mkdir()
    Path("text/notes.txt").write_text("no image")
    assert name in fails(f"shards {name} out --size 32")
    assert name in fails(f"codec fit VQ-8-8-8 {name} out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "--download CATEGORY"),
        ("--size 98 photos", "a multiple of 4, got 98: 96 or 100 fits"),
        ("--split val photos", "--download CATEGORY"),
        ("--base-url http://x photos", "--download CATEGORY"),
        ("--download cat photos", "--download CATEGORY"),
        *((f"--max-skipped={share} photos", f"expected a number from 0 to 1, got '{share}'")
          for share in ("-0.1", "1.1", "nan", "much")),
    ],
)  # fmt: skip
def test_shards_refuse_bad_options_at_once(
    options: str, told: str, photos: Path, fails: Run
) -> None:
    size = "" if "--size" in options else "--size 32"
    assert told in fails(f"shards {size} {options} out")
    assert not Path("out").exists()


@pytest.mark.parametrize("order", ["photos {} out", "{} photos out", "photos out {}"])
def test_shards_take_their_paths_anywhere_and_tell_what_they_enlarged(
    order: str, photos: Path, run: Run
) -> None:
    told = run("shards " + order.format("--size 128 --max-skipped 0.1"))
    assert "12 of them were enlarged to 128×128: the shortest side was 64 pix" in told
    assert Path("out/manifest.json").exists()
    assert "enlarged" not in run("shards --size 64 photos small")


def test_bad_images_among_good_ones_are_skipped_counted_and_named(
    photos: Path, run: Run, fails: Run
) -> None:
    Image.new("RGB", (1, 1)).save(photos / "tiny.png")
    Image.new("1", (10_000, 10_001)).save(photos / "bomb.png")
    whole = (photos / "000.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    message = fails("shards photos strict --size 32")
    for name in ("tiny.png", "bomb.png", "half.png", "3 of 15"):
        assert name in message
    assert "Skipped 3 images" in run("shards photos out --size 32 --max-skipped 0.5")
    for out in ("strict", "out"):
        with tarfile.open(f"{out}/images-000000.tar") as archive:
            assert len(archive.getnames()) == 12


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("-n 0", "whole number from 1"),
        (f"-n {'9' * 5000}", "whole number from 1"),
        ("--seed -1", "whole number from 0"),
        ("--steps 5000", "steps from 1 to 1000"),
        ("--device nowhere", "nowhere"),
        ("--temperature 0.5", "takes no temperature"),
        ("--temperature 0 1", "takes no temperature"),
        ("--temperature -1", "a number from 0, or argmax, got '-1'"),
        ("--temperature 1 warm", "a number from 0, or argmax, got 'warm'"),
        ("--sampler euler", "got 'euler'"),
        ("--sampler ddim --eta 1.1", "lies in [0, 1], got 1.1"),
        ("--sampler ddim --eta some", "--eta"),
        ("--eta 0.5", "eta is ddim's"),
        ("--refiner no-such-refiner", "no-such-refiner"),
        ("--refiner opq-32-8-8", "expected a Refiner"),
        ("--label 0", "knows no labels"),
        ("--guidance 1.5", "trained without labels"),
        ("--guidance-interval 0 1", "need a scale"),
        ("--guidance 2 --guide opq-32-8-8", "a diffusion model as guide"),
        ("--path 1", "from 2 to 51 frames"),
        ("--path 11 --steps 5", "from 2 to 6 frames, not 11"),
        ("--path --refiner opq-32-8-8", "leave --refiner out"),
        ("--path --temperature 0 1", "Choose one of a folder"),
        ("--out paths/ --path", "Choose one of a folder"),
        ("--out grid.jpg", "PNG"),
        ("--out missing/grid.png", "does not exist"),
    ],
)
def test_sample_refuses_bad_options_before_it_works(
    options: str, word: str, tmp_path: Path, fails: Run
) -> None:
    model = ContinuousDiffusion("opq-32-8-8", UNet(6, 6, 8, (1,), 1), GaussianProcess(), 16)
    save_entry(model, tmp_path / "model")
    message = fails(f"sample model {options}")
    assert word in message
    assert "sampling:" not in message  # the progress bar
    assert not Path("grid.png").exists()


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a model whose samples follow its temperature."""
    torch.manual_seed(0)
    network = UNet(6, 1536, 8, (1,), 1)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    path = tmp_path_factory.mktemp("entry") / "model"
    save_entry(CategoricalDiffusion("opq-32-8-8", network, CategoricalProcess(), 32), path)
    return str(path)


@pytest.fixture
def categorical(entry: str) -> CategoricalDiffusion:
    return load_pretrained(entry)


def test_sample_and_report_refuse_what_is_no_model_or_codec(entry: str, fails: Run) -> None:
    assert "no-such-model" in fails("sample no-such-model")
    assert "PatchCodec" in fails("sample opq-32-8-8")
    assert "expected a codec" in fails(f"codec report {entry} photos")


def sheet(path: Path | str) -> torch.Tensor:
    """A picture as (3, H, W) uint8."""
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("options", [{"sampler": "dpm++"}, {"sampler": "ddim", "eta": 0.5},
                                     {"temperature": 0.0}])  # fmt: skip
def test_sample_draws_as_its_options_say(
    options: dict[str, Any], categorical: CategoricalDiffusion, entry: str, run: Run
) -> None:
    given = " ".join(f"--{name} {value}" for name, value in options.items())
    run(f"sample {entry} -n 2 --steps 3 --seed 7 --out grid.png {given}")
    assert torch.equal(sheet("grid.png"), grid(categorical.sample(2, 3, 7, **options)))


def test_sample_refines_where_it_is_told(
    categorical: CategoricalDiffusion, entry: str, tmp_path: Path, run: Run
) -> None:
    network = RefinerUNet(8, (1, 2))
    torch.nn.init.normal_(network.head.weight, std=0.1)
    refiner = Refiner("opq-32-8-8", network)
    save_entry(refiner, tmp_path / "refiner")
    run(f"sample {entry} -n 2 --steps 3 --refiner refiner --out grid.png")
    refined = grid(categorical.sample(2, 3, refiner=refiner))
    assert torch.equal(sheet("grid.png"), refined)
    assert not torch.equal(refined, grid(categorical.sample(2, 3)))


def test_sample_follows_labels_and_guidance(tmp_path: Path, run: Run, fails: Run) -> None:
    torch.manual_seed(0)
    parts: Any = "opq-32-8-8", UNet(None, None, 8, (1,), 1), GaussianProcess(), 16
    model = ContinuousDiffusion(*parts, class_names=["Crop", "Forest", "River"])
    torch.nn.init.normal_(parts[1].head.weight, std=0.5)
    save_entry(model, tmp_path / "model")
    flags = "--label River 1 --guidance 2 --guidance-interval 0.1 0.9"
    run(f"sample model -n 4 --steps 3 --out grid.png {flags}")
    led = model.sample(4, 3, label=[2, 1], guidance=2, guidance_interval=(0.1, 0.9))
    assert torch.equal(sheet("grid.png"), grid(led))
    run("sample model -n 6 --steps 3 --out turns.png")
    run("sample model -n 2 --steps 3 --guidance 2 --out new/")
    run("sample --like new/000001.png --out again.png")
    assert torch.equal(sheet("again.png"), sheet("new/000001.png"))
    assert (
        json.loads(Image.open("new/000001.png").text["lit_mbldm"])["options"]["label"] == "Forest"
    )
    assert torch.equal(sheet("turns.png"), grid(model.sample(6, 3), columns=3))
    assert "such as Forest" in fails("sample model --label Forrest")


def test_sample_shows_temperatures_as_rows_of_the_same_seeds(
    categorical: CategoricalDiffusion, entry: str, run: Run
) -> None:
    run(f"sample {entry} -n 3 --steps 3 --temperature argmax 0.1 2 --out rows.png")
    rows = [categorical.sample(3, 3, temperature=t) for t in (0, 0.1, 2)]
    expected = grid(torch.cat(rows), columns=3)
    assert torch.equal(sheet("rows.png")[:, :, -expected.shape[2] :], expected)


def test_sample_shows_sizes_as_rows_of_the_same_latents(
    categorical: CategoricalDiffusion, entry: str, run: Run, fails: Run
) -> None:
    run(f"sample {entry} -n 3 --steps 3 --size 24 48x40 --out rows.png")
    first, second = (grid(categorical.sample(3, 3, size=s), 3) for s in ((24, 24), (48, 40)))
    rows = sheet("rows.png")
    assert torch.equal(rows[:, : first.shape[1], : first.shape[2]], first)
    assert torch.equal(rows[:, first.shape[1] :], second)
    run(f"sample {entry} -n 1 --steps 3 --size 48x40 --out one.png")
    assert torch.equal(sheet("one.png"), grid(categorical.sample(1, 3, size=(48, 40))))
    for words, told in (
        ("24 48 --path", "Choose one"),
        ("0", "HEIGHTxWIDTH"),
        ("99999", "at most"),
    ):
        assert told in fails(f"sample {entry} --size {words}")


def test_upscale_writes_an_image_of_the_size_asked_for(run: Run, fails: Run) -> None:
    photo = synthetic(37, 50)
    Image.fromarray(photo).save("photo.png")
    codec = load_pretrained("jpq-48")
    run("upscale photo.png --scale 2.7 --codec jpq-48 --out up.png")
    image = sheet("photo.png")
    assert torch.equal(sheet("up.png"), upscale(codec, image, (100, 135)))
    run("upscale photo.png --size 60x50 --codec jpq-48")
    assert sheet("upscaled.png").shape == (3, 60, 50)
    Image.fromarray(photo[:5]).save("small.png")
    for words, told in (
        ("photo.png --scale 0.5", "a scale from 1"),
        ("photo.png --scale nan", "a scale from 1"),
        ("photo.png --size 20x99", "makes an image larger"),
        ("photo.png --size 0x99", "HEIGHTxWIDTH"),
        ("photo.png --size 200", "expected HEIGHTxWIDTH in pixels, got '200'"),
        ("photo.png --scale 2 --out photo.png", "the image itself"),
        ("photo.png --scale 2 --device none", "The device none cannot be used"),
        ("photo.png --size 20000x20000", "at most"),
        ("small.png --scale 2", "at least 8×8 pixels"),
        ("none.png --scale 2", "none.png"),
        ("photo.png", "--scale --size"),
    ):
        assert told in fails(f"upscale {words} --codec jpq-48")


@pytest.mark.parametrize(("given", "frames"), [("3", 3), ("", 5)])  # by default each step
def test_sample_shows_the_way_from_noise(
    given: str, frames: int, categorical: CategoricalDiffusion, entry: str, run: Run
) -> None:
    run(f"sample {entry} -n 2 --steps 4 --temperature 0.5 --out path.png --path {given}")
    paths = categorical.sample_paths(2, SampleOptions(steps=4, temperature=0.5), frames)
    expected = grid(paths.flatten(0, 1), columns=frames)
    assert torch.equal(sheet("path.png")[:, -expected.shape[1] :], expected)


def test_sample_writes_a_file_an_image(
    categorical: CategoricalDiffusion, entry: str, run: Run, fails: Run
) -> None:
    command = f"sample {entry} -n 3 --steps 2 --batch-size 2 --out new/"
    run(command)
    images = [sheet(f"new/00000{i}.png") for i in range(3)]
    assert torch.equal(torch.stack(images), categorical.sample(3, 2))
    assert "already holds pictures" in fails(command)


def test_a_picture_tells_how_it_was_made_and_is_made_again(
    entry: str, tmp_path: Path, run: Run, fails: Run
) -> None:
    run(f"sample {entry} -n 3 --steps 2 --seed 4 --temperature 0.7 --canvas 32x48 --out new/")
    told = json.loads(Image.open("new/000002.png").text["lit_mbldm"])
    assert (told["model"], told["number"], told["version"]) == (entry, 2, lit_mbldm.__version__)
    options = {"seed": 4, "steps": 2, "sampler": "ddpm", "temperature": 0.7, "canvas": [32, 48]}
    assert told["options"] == options
    assert sheet("new/000002.png").shape == (3, 32, 48)
    run("sample --like new/000002.png --out again.png")
    assert torch.equal(sheet("again.png"), sheet("new/000002.png"))
    other = CategoricalDiffusion("opq-32-8-8", UNet(6, 1536, 8, (1,), 1), CategoricalProcess(), 32)
    save_entry(other, tmp_path / "other")
    assert "other weights" in fails("sample other --like new/000002.png --out no.png")
    assert "got also steps" in fails("sample --like new/000002.png --steps 3")
    assert "does not tell" in fails("sample --like again.png --out no.png")
    assert "no picture" in fails("sample --like missing.png --out no.png")
    assert "Expected a MODEL" in fails("sample -n 3")
    assert "HEIGHTxWIDTH" in fails(f"sample {entry} --canvas 32by32")
    assert "multiples of 8" in fails(f"sample {entry} --canvas 30x32")


@pytest.mark.parametrize("val", [0.0, 0.3])
def test_sample_shows_the_nearest_training_images(
    val: float, categorical: CategoricalDiffusion, entry: str, photos: Path, run: Run
) -> None:
    for i, image in enumerate(samples := categorical.sample(3, 3)):
        save(image, photos / f"copy{i}.png")
    run(f"shards photos copied --size 32 --val {val}")
    told = run(f"sample {entry} -n 3 --steps 3 --nearest copied --out pairs.png")
    assert ("held-out: " if val else "copies: 100.0% (at most 0.5 ") in told
    pairs = sheet("pairs.png")[:, -2 * 34 :]  # two rows of two pairs each
    shown = [pairs[:, 0:32, x : x + 32].float() for x in range(-136, 0, 34)]
    assert min((shown[0] - sample).abs().sum() for sample in samples) == 0
    assert val or (shown[0] - shown[1]).abs().mean() < 10


def test_a_random_seed_is_told(entry: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("lit_mbldm.training.options.rank_zero_info", told.append)
    run(f"sample {entry} -n 1 --steps 2 --out random.png --seed random")
    seed = told[0].removeprefix("Fresh seed: ")
    run(f"sample {entry} -n 1 --steps 2 --out same.png --seed {seed}")
    assert torch.equal(sheet("random.png"), sheet("same.png"))


@pytest.mark.slow
def test_an_ascii_locale_gets_question_marks() -> None:
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "lit_mbldm", "zoo"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert list_shipped().replace("×", "?") in done.stdout


def test_sample_takes_a_run_s_folder_and_names_a_missing_file(
    tmp_path: Path, run: Run, fails: Run
) -> None:
    checkpoints = tmp_path / "version_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    run(f"fit --config {write_config(checkpoints, 'continuous')} --trainer.max_steps 1")
    run("sample version_0 -n 1 --steps 2 --out a.png")
    expected = load_pretrained(checkpoints / "last.ckpt").sample(1, 2)
    assert torch.equal(sheet("a.png"), grid(expected))
    for missing in ("version_0/none.ckpt", "last.ckpt", f"{tmp_path}/version_1"):
        assert "no such file or folder" in fails(f"sample {missing}")


@pytest.mark.parametrize(("verb", "goes_on"), [("sample", False), ("shards", True)])
def test_an_interrupted_verb_promises_what_it_keeps(
    verb: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, fails: Run
) -> None:
    command = sys.modules["lit_mbldm.cli.main"]  # the package's `main` is the function
    monkeypatch.setattr(command, "dispatch", Mock(side_effect=KeyboardInterrupt))
    assert ("to go on" in fails(verb)) == goes_on


def test_the_package_has_a_version_and_loads_models() -> None:
    assert lit_mbldm.__version__ == importlib.metadata.version("lit-mbldm")
    assert lit_mbldm.load_pretrained is load_pretrained
    with pytest.raises(AttributeError, match="nothing"):
        _ = lit_mbldm.nothing


@pytest.mark.parametrize(
    "command",
    ["shards photos /proc/out --size 32", "codec fit VQ-8-8-8 nowhere /proc/out",
     "codec decoder nowhere /proc/out", "codec report nowhere nowhere --picture /proc/out.png",
     "export nowhere /proc/out", "sample nowhere --out /proc/out.png",
     "sample nowhere --out /proc/out/"],
)  # fmt: skip
def test_a_place_where_nothing_can_be_written_is_found_first(
    command: str, photos: Path, fails: Run
) -> None:
    message = fails(command)
    assert "/proc" in message
    assert "shards:" not in message  # nothing was converted


def test_a_missing_checkpoint_and_an_occupied_name_are_named(
    photos: Path, tmp_path: Path, fails: Run
) -> None:
    config = write_config(tmp_path, "continuous")
    logger = "--trainer.logger TensorBoardLogger --trainer.logger.save_dir runs"
    told = fails(f"fit --config {config} --ckpt_path none.ckpt {logger} --trainer.logger.name one")
    assert "none.ckpt" in told
    assert not Path("runs/one").exists()
    assert "job.yaml" in fails("shards photos job.yaml --size 32")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (20, "--data.batch_size 20 --trainer.max_steps 1500"),
        (640, "--trainer.max_steps 2000"),
        (3200, ""),
    ],
)
def test_few_images_are_passed_fewer_times(count: int, words: str) -> None:
    assert fit_words("shards", 64, count)[5:] == words.split()


@pytest.mark.slow
def test_train_goes_from_a_folder_to_a_model_and_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    # what a kill leaves before the first checkpoint of a run
    (tmp_path / "runs" / "photos_64" / "version_0").mkdir(parents=True)
    told = run("train photos --steps 1")
    assert [line.split()[2] for line in told.splitlines() if line.startswith("$ lit-mbldm")] == [
        "shards", "fit",
    ]  # fmt: skip
    made = tmp_path / "runs" / "photos_64" / "version_1"
    assert (made / "samples.png").exists()
    (hint,) = re.findall("Train on them: lightning (.*)", told)
    assert f"$ lit-mbldm {hint} " in told
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.*")}
    run("train photos --steps 2")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {path.name for path in made.parent.iterdir()} == {"version_0", made.name}
    assert load_pretrained(made / "checkpoints" / "last.ckpt").latent.fitted
