import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  its log handler must hold a stream that outlives a test
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import instantiate_class
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.cli.config_files import expand_bases, own_configs
from lit_mbldm.errors import InputError
from lit_mbldm.training import DiffusionModule

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
QUICK = {
    "data.batch_size": 2,
    "data.num_workers": 0,
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.enable_model_summary": "false",
}


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])


@pytest.fixture
def resolve(capsys: pytest.CaptureFixture[str]) -> Any:
    """What the real command makes of a config, given by its path or name, and of options."""

    def call(config: str | Path, *options: str, verb: str = "fit") -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--config", str(config), *options, "--print_config"])
        shown = capsys.readouterr()
        assert stopped.value.code in (0, None), stopped.value.code
        return yaml.safe_load(shown.out)

    return call


def build(tree: Any) -> Any:
    """Instantiate a class_path tree, inner objects first; types were checked by the parser."""
    if isinstance(tree, list):
        return [build(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    built = {key: build(value) for key, value in tree.items()}
    return instantiate_class((), built) if "class_path" in built else built


def fewer_samples(folder: Path, config: dict[str, Any]) -> list[str]:
    """A further config that draws two images in two steps; a list cannot be indexed by options."""
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("SampleImages"):
            callback["init_args"] |= {"num_images": 2}
            callback["init_args"]["options"]["steps"] = 2
    path = folder / "fewer.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": config["trainer"]["callbacks"]}}))
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of image shards and code shards at 104×104: 13 patches, which no U-Net halves."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (104, 104, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "photos" / f"{i}.png")
    images, codes = str(folder / "images"), str(folder / "codes")
    main(["shards", str(folder / "photos"), images, "--size", "104", "--val", "0.3"])
    main(["encode", images, codes, "--codec", "opq-32-8-8"])
    return folder


@pytest.mark.parametrize(
    "name", ["own256", *(name for name in NAMES if name.startswith("small96"))]
)
def test_any_multiple_of_8_trains_and_samples(
    name: str, shards: Path, tmp_path: Path, resolve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    refines, codes = name.endswith("refiner"), name == "small96_categorical"
    options = QUICK | {
        "data.train": shards / ("codes" if codes else "images"),
        "data.val": shards / "images" / "val",
        "trainer.logger.init_args.save_dir": tmp_path,
    }
    if not refines:
        options |= {"model.image_size": 104, "model.denoiser.init_args.base_channels": 8}
    arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = ["--config", name, *fewer_samples(tmp_path, resolve(name)), *arguments]
    main(["fit", *command])
    assert "left=0:00:00" in capsys.readouterr().out
    (run,) = (tmp_path / name).iterdir()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / "samples.png").is_file() != refines
    assert bool(list(run.glob("pictures/samples-*.png"))) != refines  # drawn at validation
    resolved = resolve(run / "resolved_config.yaml")
    assert "base" not in resolved
    assert resolved == resolve(*command[1:])


def test_a_generative_decoder_trains_and_refines_samples(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = QUICK | {
        "model.codec": "jpq-32-4x4",
        "model.network.init_args.base_channels": 8,
        "data.train": shards / "images",
        "trainer.logger.init_args.save_dir": tmp_path,
    }
    arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    main(["fit", "--config", "generative_decoder", *arguments])
    (run,) = (tmp_path / "generative_decoder").iterdir()
    assert (run / "refined.png").is_file()
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert f"--refiner {checkpoint}" in capsys.readouterr().out
    drawn = []
    for name, refiner in [("plain", "none"), ("refined", str(checkpoint))]:
        out = tmp_path / f"{name}.png"
        sample = ["sample", "eurosat-64", "-n", "1", "--steps", "2", "--out", str(out)]
        main([*sample, "--refiner", refiner])
        drawn.append(np.asarray(Image.open(out)).astype(int))
    assert 0 < np.abs(drawn[1] - drawn[0]).mean() < 7  # untrained it adds noise of its deviation
    with pytest.raises(SystemExit, match="decoder works without noise"):
        main(["codec", "decoder", str(checkpoint), str(tmp_path / "codec")])


@pytest.mark.parametrize("size", own_configs())
def test_the_configs_for_own_images_are_named_after_their_size(size: int, resolve: Any) -> None:
    assert resolve(f"own{size}")["model"]["init_args"]["image_size"] == size


@pytest.fixture
def large_networks() -> Iterator[None]:
    """Give the memory of networks of paper size back, which the allocator would keep."""
    yield
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.mark.usefixtures("large_networks")
@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds(name: str, resolve: Any) -> None:
    config = resolve(name)
    if str(config["model"]["init_args"].get("codec")).startswith("data/"):  # fitted before
        config["model"]["init_args"]["codec"] = "jpq-32-4x4"
    model = build(config["model"])
    build(config["data"])
    build(config["trainer"]["callbacks"])
    logger = config["trainer"]["logger"]["init_args"]
    assert (logger["save_dir"], logger["name"]) == ("runs", name)
    if isinstance(model, DiffusionModule):
        # slow to predict whole: the coarsest of several shapes, and else any sides will do
        shapes = model.process.shapes(model.latent_shape)
        channels, *sides = shapes[-1] if len(shapes) > 1 else (*shapes[0][:1], 8, 8)
        z = torch.zeros(1, channels, *sides)
        with torch.no_grad():
            told = torch.zeros(1, model.map_channels, *sides) if model.map_channels else None
            found = model.denoiser(z, torch.zeros(1), z, told)
        assert found.shape == (1, model.process.output_channels(channels), *sides)


@pytest.mark.parametrize(
    ("name", "network", "expected"),
    [
        ("church_cat", "denoiser", 51.8e6),
        ("church_refiner", "network", 1.7e6),
        ("church_bits_1024", "denoiser", 171e6),
    ],
)
def test_the_papers_networks_have_its_size(
    name: str, network: str, expected: float, resolve: Any
) -> None:
    with torch.device("meta"):
        built = build(resolve(name)["model"]["init_args"][network])
        if network == "denoiser":
            built.set_channels(6, 6)
    count = sum(parameter.numel() for parameter in built.parameters())
    assert count == pytest.approx(expected, rel=0.05)


ONE_STEP_AND_A_SAMPLE = """
import json, resource, sys, torch
from lightning.pytorch.cli import instantiate_class
from lit_mbldm.codecs import JointCodec
from lit_mbldm.training import BernoulliDiffusion
from lit_mbldm.training.loss_by_time import LossByTime

options = json.load(sys.stdin)
for name in ("latent", "denoiser", "process"):
    options[name] = instantiate_class((), options[name])
model = BernoulliDiffusion(**options | {"codec": JointCodec("JPQ-128", patch_size=16)})
optimizer = model.configure_optimizers()["optimizer"]
codes = torch.randint(0, 256, (1, 16, 64, 64), dtype=torch.uint8)
with torch.autocast("cpu", torch.bfloat16):
    model.loss({"codes": codes, "index": torch.zeros(1)}, (0,), LossByTime()).backward()
    optimizer.step()
    images = model.sample(1, steps=16)
assert images.shape == (1, 3, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not any(torch.cpu.get_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16")),
    reason="takes a quarter of an hour without bfloat16",
)
def test_church_bits_1024_trains_and_samples_within_8_gib(resolve: Any) -> None:
    options = json.dumps(resolve("church_bits_1024")["model"]["init_args"])
    command = [sys.executable, "-c", ONE_STEP_AND_A_SAMPLE]
    done = subprocess.run(command, input=options, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 2**30


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_a_config_and_options_override_the_inherited_keys_that_they_name(
    verb: str, tmp_path: Path, resolve: Any
) -> None:
    mine = tmp_path / "mine.yaml"
    base = f"base: {CONFIGS / 'church_cat.yaml'}\n"
    mine.write_text(f"trainer: {{max_steps: 10}}\ndata: {{init_args: {{batch_size: 32}}}}\n{base}")
    expected = resolve("church_cat", verb=verb)
    expected["trainer"]["max_steps"] = 10
    expected["data"]["init_args"]["batch_size"] = 32
    expected["model"]["init_args"]["learning_rate"] = 1.0
    learning_rate = ["--model.learning_rate", "1"]
    assert resolve(mine, *learning_rate, verb=verb) == expected
    options = ["--trainer.max_steps", "10", "--data.batch_size", "32", *learning_rate]
    assert resolve("church_cat", *options, verb=verb) == expected


@pytest.mark.parametrize("option", ["--config", "-c"])
def test_later_bases_win_and_both_spellings_of_the_option_are_read(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("seed_everything: 1")
    Path("b.yaml").write_text("seed_everything: 2")
    Path("c.yaml").write_text("base: [a.yaml, b.yaml]\ntrainer: {max_steps: 1.0e+1}")
    layers = [f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml", '{"trainer": {"max_steps": 10.0}}']
    expected = ["fit", *(word for layer in layers for word in (option, layer)), "-x"]
    assert expand_bases(["fit", option, "c.yaml", "-x"]) == expected
    assert expand_bases(["fit", f"{option}=c.yaml", "-x"]) == expected
    untouched = ["fit", option, "a.yaml", option, "seed_everything: 3", "--c", "c.yaml"]
    assert expand_bases(untouched) == untouched


def test_shipped_configs_are_found_by_name_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = expand_bases(["fit", "--config", str(CONFIGS / "church_cat.yaml")])
    for name in ("church_cat", "church_cat.yaml", "configs/church_cat.yaml"):
        assert expand_bases(["fit", f"--config={name}"]) == expected
    (tmp_path / "quickstart").write_text("seed_everything: 1")
    assert expand_bases(["fit", "-c", "quickstart"])[-1] == "quickstart"  # a file wins
    with pytest.raises(InputError, match=r"no config churchcat\. Expected .* church_cat,"):
        expand_bases(["fit", "--config", "churchcat"])


@pytest.mark.parametrize(
    ("base", "told"),
    [("none.yaml", "does not exist"), ("[3]", "does not exist"), ("{a: b}", "does not exist"),
     ("mine.yaml", "starts from itself"), ("other.yaml", "starts from itself")],
)  # fmt: skip
def test_a_base_that_is_missing_or_circular_is_named(base: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: mine.yaml\n")
    (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
    with pytest.raises(InputError, match=told):
        expand_bases(["fit", "--config", str(tmp_path / "mine.yaml")])
