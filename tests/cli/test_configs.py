import re
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  its log handler must hold a stream that outlives a test
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import instantiate_class
from PIL import Image
from torch import nn

from lit_mbldm.cli import main
from lit_mbldm.cli.config_files import expand_bases
from lit_mbldm.codecs import DecoderCodec
from lit_mbldm.denoisers import RefinerUNet, UNet
from lit_mbldm.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
KINDS = ("continuous", "categorical", "refiner")
PAPER = ["church_continuous", "church_cat", "church_refiner"]
PAPER += [f"lsun_cat_{kind}" for kind in KINDS]
SMALL = [f"small{size}_{kind}" for size in (96, 192) for kind in KINDS]
BEST = {
    "church_best": "church_cat",
    "lsun_cat_best": "lsun_cat_categorical",
    "small96_best": "small96_categorical",
    "small192_best": "small192_categorical",
}


QUICK = {
    "data.batch_size": 2,
    "data.num_workers": 0,
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
}


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-mbldm"])


@pytest.fixture
def resolve(capsys: pytest.CaptureFixture[str]) -> Any:
    """What the real command makes of a config and options."""

    def call(path: Path, *options: str, verb: str = "fit") -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--config", str(path), *options, "--print_config"])
        shown = capsys.readouterr()
        assert stopped.value.code in (0, None), stopped.value.code
        return yaml.safe_load(shown.out)

    return call


def named(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"


def build(tree: Any) -> Any:
    """Instantiate a class_path tree, inner objects first; types were checked by the parser."""
    if isinstance(tree, list):
        return [build(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    built = {key: build(value) for key, value in tree.items()}
    return instantiate_class((), built) if "class_path" in built else built


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def callbacks(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given = config["trainer"]["callbacks"]
    assert len({one["class_path"] for one in given}) == len(given)
    return {one["class_path"].rsplit(".", 1)[1]: one["init_args"] for one in given}


def test_shards_tells_which_sizes_fit(capsys: pytest.CaptureFixture[str], resolve: Any) -> None:
    with pytest.raises(SystemExit):
        main(["shards", "PHOTOS", "OUT", "--size", "100"])
    told = capsys.readouterr().err
    assert "a multiple of 8" in told
    assert "96 or 104 fits" in told
    found = re.findall(r"(\w+) is for (\d+)", told)
    assert {name for name, _ in found} >= {name for name in NAMES if re.match(r"own\d", name)}
    for name, size in found:
        assert resolve(named(name))["model"]["init_args"]["image_size"] == int(size)


def test_any_multiple_of_8_trains_and_samples(
    tmp_path: Path, resolve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """104 = 13 patches, which the U-Net cannot halve."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (104, 104, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    images, codes = str(tmp_path / "images"), str(tmp_path / "codes")
    main(["shards", str(tmp_path / "photos"), images, "--size", "104", "--val", "0.3"])
    main(["encode", images, codes, "--codec", "opq-32-8-8"])
    options = {**QUICK, "data.train": codes, "model.image_size": 104}
    options |= {
        "trainer.logger.init_args.save_dir": tmp_path,
        "model.denoiser.init_args.base_channels": 8,
        "trainer.enable_progress_bar": "true",
    }
    arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    sampling = fewer_samples(tmp_path, resolve(named("own256")))
    main(["fit", "--config", str(named("own256")), *sampling, *arguments])
    pictures = tmp_path / "own256" / "version_0" / "pictures"
    assert list(pictures.glob("samples-*.png"))  # drawn at validation, on codes/val
    assert "left=0:00:00" in capsys.readouterr().out


def test_the_sixteen_configs_exist() -> None:
    assert {*PAPER, *SMALL, *BEST} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds(name: str, resolve: Any) -> None:
    config = resolve(named(name))
    model, data = build(config["model"]), build(config["data"])
    build(config["trainer"]["callbacks"])
    assert model.codec.num_codes == 6
    logger = config["trainer"]["logger"]["init_args"]
    assert (logger["save_dir"], logger["name"]) == ("runs", name)
    if name == "jpq48_decoder":
        assert tuple(model.noise_range) == (0, 0)
        assert count(model.network) <= 1.7e6
        DecoderCodec(model.codec, model.network)
        return
    assert data.batch_size >= 16
    if name.endswith("refiner"):
        assert "SampleImages" not in callbacks(config)
        return
    assert callbacks(config)["SampleImages"]["options"]["steps"] <= 100
    side = model.image_size // 8
    z = torch.zeros(1, 6, side, side)
    with torch.no_grad():
        found = model.denoiser(z, torch.zeros(1), z)
    assert found.shape == (1, model.process.output_channels(6), side, side)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str, resolve: Any) -> None:
    config = resolve(named(name))
    trainer, data, model = config["trainer"], config["data"], config["model"]
    arguments = model["init_args"]
    data_set, kind = name.removeprefix("lsun_").split("_")
    assert config["seed_everything"] == 0
    assert (trainer["max_steps"], arguments["learning_rate"]) == (
        (100_000, 2e-3) if kind == "refiner" else (1_000_000, 1e-4)
    )
    assert trainer["precision"] == "bf16-mixed"
    assert trainer["gradient_clip_val"] == 1.0
    assert (trainer["devices"], data["init_args"]["batch_size"]) == (1, 64)
    assert data["init_args"]["horizontal_flip"]
    assert data["init_args"]["train"] == f"data/{data_set}_512"
    assert data["init_args"]["cache_dir"] == (None if kind == "refiner" else "data/codes")
    assert arguments["codec"] == "opq-32-8-8"
    assert arguments["betas"] == [0.9, 0.99]
    average = callbacks(config)["EMAWeightAveraging"]
    assert (average["decay"], average["update_every_n_steps"]) == (0.995, 10)
    assert average["use_buffers"] is False
    kept = callbacks(config)["ModelCheckpoint"]
    assert (kept["save_last"], kept["every_n_train_steps"]) == (True, 10_000)
    if kind == "refiner":
        return
    assert arguments["image_size"] == 512
    process = arguments["process"]["init_args"]
    assert process.pop("num_timesteps") == 1000
    assert process.pop("schedule") == "linear"
    assert process.pop("min_snr_gamma") == 5.0
    assert process.pop("self_conditioning") is True
    assert process.pop("codebook_size") is None
    assert process == (
        {"objective": "eps"}
        if kind == "continuous"
        else {
            "latent_weight": 1.0,
            "image_weight": 1.0,
            "cross_entropy_weight": 0.0,
            "gumbel_temperature": 1.0,
            "likelihood": False,
            "gaussian_head": False,
            "image_target": "decoded",
        }
    )


def test_parameter_counts_are_those_of_the_notes(resolve: Any) -> None:
    networks = {}
    for kind, key in (("continuous", "denoiser"), ("cat", "denoiser"), ("refiner", "network")):
        config = resolve(named(f"church_{kind}"))
        with torch.device("meta"):
            networks[kind] = build(config["model"]["init_args"][key])
    assert isinstance(networks["continuous"], UNet)
    assert isinstance(networks["refiner"], RefinerUNet)
    assert count(networks["continuous"]) == pytest.approx(51.7e6, rel=0.02)
    head = (1536 - 6) * (80 + 1)  # the categorical head's further channels, weights and biases
    assert count(networks["cat"]) - count(networks["continuous"]) == head
    assert count(networks["refiner"]) == pytest.approx(1.7e6, rel=0.05)


@pytest.mark.parametrize("name", SMALL)
def test_the_small_ones_use_what_learns_fastest(name: str, resolve: Any) -> None:
    config = resolve(named(name))
    arguments = config["model"]["init_args"]
    if name.endswith("refiner"):
        return
    size = int(name[5:].split("_")[0])
    assert arguments["image_size"] == size
    assert len(arguments["denoiser"]["init_args"]["channel_multipliers"]) == size // 96 + 1
    if size == 96:
        assert (arguments["learning_rate"], arguments["warmup_steps"]) == (2e-3, 100)
    process = arguments["process"]["init_args"]
    assert process["schedule"] == "cosine"
    if name.endswith("_continuous"):
        assert process["objective"] == "v"
        return
    weights = [process[f"{term}_weight"] for term in ("latent", "image", "cross_entropy")]
    assert weights == [0.0, 0.0, 1.0]
    assert process["likelihood"]
    assert process["gaussian_head"]
    assert callbacks(config)["SampleImages"]["options"]["temperature"] == 0.6


@pytest.mark.parametrize("name", BEST)
def test_the_best_ones_change_the_codec_and_the_process_alone(name: str, resolve: Any) -> None:
    config, other = resolve(named(name)), resolve(named(BEST[name]))
    codec = "jpq-48+decoder" if name == "small96_best" else "jpq-48"
    assert config["model"]["init_args"].pop("codec") == codec
    assert other["model"]["init_args"].pop("codec") == "opq-32-8-8"
    best = resolve(named("small96_categorical"))["model"]["init_args"]
    assert config["model"]["init_args"].pop("process") == best["process"]
    other["model"]["init_args"].pop("process")
    config["trainer"]["logger"] = other["trainer"]["logger"]
    if name.startswith("small"):
        codes = config["data"]["init_args"]["train"]
        assert codes == other["data"]["init_args"]["train"].replace("_codes", "_jpq")
        config["data"] = other["data"]
    assert config == other


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_options_override_inherited_keys(verb: str, resolve: Any) -> None:
    options = ["--trainer.max_steps", "10", "--data.batch_size", "2", "--model.learning_rate", "1"]
    config = resolve(named("church_cat"), *options, verb=verb)
    assert config["trainer"]["max_steps"] == 10
    assert config["data"]["init_args"]["batch_size"] == 2
    assert config["model"]["init_args"]["learning_rate"] == 1
    assert config["trainer"]["precision"] == "bf16-mixed"


def test_a_block_keeps_the_inherited_keys_it_does_not_name(tmp_path: Path, resolve: Any) -> None:
    mine = tmp_path / "mine.yaml"
    base = f"base: {named('lsun_cat_categorical')}\n"
    mine.write_text(f"trainer: {{devices: 2}}\ndata: {{init_args: {{batch_size: 32}}}}\n{base}")
    expected = resolve(named("lsun_cat_categorical"))
    expected["trainer"]["devices"] = 2
    expected["data"]["init_args"]["batch_size"] = 32
    assert resolve(mine) == expected


def test_later_bases_win_and_both_spellings_of_the_option_are_read(tmp_path: Path) -> None:
    for name, text in {
        "a": "seed_everything: 1",
        "b": "seed_everything: 2",
        "c": "base: [a.yaml, b.yaml]\ntrainer: {max_steps: 1.0e+1}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    a, b, c = (str(tmp_path / f"{name}.yaml") for name in "abc")
    layers = [a, b, '{"trainer": {"max_steps": 10.0}}']
    for option in ("--config", "-c"):
        expected = ["fit", *(word for layer in layers for word in (option, layer)), "-x"]
        assert expand_bases(["fit", option, c, "-x"]) == expected
        assert expand_bases(["fit", f"{option}={c}", "-x"]) == expected
    untouched = ["fit", "--config", a, f"--config={b}", "--config", "seed_everything: 3", "--c", c]
    assert expand_bases(untouched) == [
        *untouched[:3], "--config", b, *untouched[4:],
    ]  # fmt: skip


def test_shipped_configs_are_found_by_name_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = expand_bases(["fit", "--config", str(named("church_cat"))])
    for name in ("church_cat", "church_cat.yaml", "configs/church_cat.yaml"):
        assert expand_bases(["fit", f"--config={name}"]) == expected
    (tmp_path / "quickstart").write_text("seed_everything: 1")
    assert expand_bases(["fit", "-c", "quickstart"])[-1] == "quickstart"  # a file wins
    with pytest.raises(InputError, match=r"no config churchcat\. Expected .* church_cat,"):
        expand_bases(["fit", "--config", "churchcat"])


@pytest.mark.parametrize("base", ["none.yaml", "[3]", "{a: b}"])
def test_a_missing_base_is_named(base: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
    with pytest.raises(InputError, match="does not exist"):
        expand_bases(["fit", "--config", str(tmp_path / "mine.yaml")])


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(InputError, match="starts from itself"):
        expand_bases(["fit", "--config", str(tmp_path / "a.yaml")])


def test_what_configs_share_is_written_once() -> None:
    """No block of more than the data paths and the run's name is in two of the paper's files."""
    for name in PAPER:
        keys = yaml.safe_load(named(name).read_text())
        assert keys.keys() - {"score"} == {"base", "data", "trainer"}
        assert keys["data"].keys() == {"init_args"}
        assert keys["data"]["init_args"].keys() <= {"train", "val", "in_memory"}
        assert keys["trainer"] == {"logger": {"init_args": {"name": name}}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 96)).save(folder / "photos" / f"{i}.png")
    main(["shards", str(folder / "photos"), str(folder / "images"), "--size", "96"])
    main(["encode", str(folder / "images"), str(folder / "codes"), "--codec", "opq-32-8-8"])
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_the_small_ones_train(name: str, shards: Path, tmp_path: Path, resolve: Any) -> None:
    options = {
        **QUICK,
        "data.train": shards / ("images" if name.endswith("refiner") else "codes"),
        "data.val": shards / "images",
        "trainer.logger.init_args.save_dir": tmp_path,
    }
    if not name.endswith("refiner"):
        options["model.image_size"] = 96  # of the test's shards
    arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    sampling = fewer_samples(tmp_path, resolve(named(name)))
    main(["fit", "--config", str(named(name)), *sampling, *arguments])
    (run,) = (tmp_path / name).iterdir()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / "samples.png").is_file() != name.endswith("refiner")
    resolved = resolve(run / "resolved_config.yaml")
    assert "base" not in resolved
    assert resolved["trainer"]["gradient_clip_val"] == 1.0
    assert resolved == resolve(named(name), *sampling, *arguments)


def fewer_samples(folder: Path, config: dict[str, Any]) -> list[str]:
    """A further config that draws two images in two steps; a list cannot be indexed by options."""
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("SampleImages"):
            callback["init_args"]["num_images"] = 2
            callback["init_args"]["options"]["steps"] = 2
    path = folder / "fewer.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": config["trainer"]["callbacks"]}}))
    return ["--config", str(path)]
