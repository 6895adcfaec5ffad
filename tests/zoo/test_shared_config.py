import json
from pathlib import Path

import pytest
import yaml

from lit_mbldm.cli import main
from lit_mbldm.entries.shared_config import shared_config
from lit_mbldm.zoo import load_pretrained

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
TINY = {
    "trainer.accelerator": "cpu",
    "trainer.max_steps": 1,
    "data.image_size": 16,
    "data.batch_size": 1,
    "model.image_size": 16,
    "model.denoiser.base_channels": 8,
    "trainer.callbacks": "[]",
}


def test_a_card_tells_the_config_of_the_training_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    init_args = {"save_dir": "me:sesame@host:/p", "name": "key-sesame", "prefix": "sesame"}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": init_args}
    argv = [f"--{name}={value}" for name, value in TINY.items()]
    main(["fit", "--config", str(CONFIG), *argv, "--trainer.logger", json.dumps(logger)])
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    main(["export", str(checkpoint), str(tmp_path / "entry"), "--steps", "1"])
    assert not any(b"sesame" in path.read_bytes() for path in (tmp_path / "entry").iterdir())
    config = load_pretrained(tmp_path / "entry").about.config
    given = yaml.safe_load((CONFIG.parent / "parts" / "recipe.yaml").read_text())
    assert config["seed_everything"] == given["seed_everything"]
    assert config["trainer"]["max_steps"] == TINY["trainer.max_steps"]
    assert config["trainer"]["check_val_every_n_epoch"] is None
    assert config["data"]["class_path"] == given["data"]["class_path"]
    assert config["data"]["init_args"]["batch_size"] == TINY["data.batch_size"]
    for key in ("codec", "learning_rate", "optimizer", "decay"):
        assert config["model"]["init_args"][key] == given["model"]["init_args"][key]
    assert yaml.safe_dump(config, sort_keys=False) in (tmp_path / "entry/README.md").read_text()


def test_a_card_tells_what_a_process_predicts() -> None:
    process = {"objective": "v", "image_target": "original", "schedule": "sigmoid"}
    config = {"model": {"init_args": {"process": {"init_args": process}}}}
    assert shared_config(config) == config


def test_a_card_names_a_codec_that_ships_and_no_folder() -> None:
    init_args = {"codec": "jpq-48", "low_size": 48}
    assert shared_config({"model": init_args}) == {"model": init_args}
    assert shared_config({"model": {**init_args, "codec": "/home/me"}}) == {
        "model": {"low_size": 48}
    }
