"""One process with a batch of eight and two with four each train the same model."""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
STEPS = 6


def run(folder: Path, devices: int, steps: int, resumed_from: Path | None = None) -> None:
    options = {
        "trainer.accelerator": "cpu",
        "trainer.devices": devices,
        "trainer.strategy": "ddp" if devices > 1 else "auto",
        "trainer.max_steps": steps,
        "trainer.log_every_n_steps": 1,
        "trainer.logger": "lightning.pytorch.loggers.CSVLogger",
        "trainer.logger.save_dir": folder,
        "trainer.logger.version": "run",
        "data.crop_size": 32,
        "data.batch_size": 8 // devices,
        "data.crops_per_epoch": 32,
        "model.image_size": 32,
        "model.denoiser.base_channels": 16,
        "model.denoiser.blocks_per_level": 1,
    }
    callbacks = yaml.safe_load(CONFIG.read_text())["trainer"]["callbacks"]
    no_samples = [one for one in callbacks if not one["class_path"].endswith("SampleImages")]
    (folder / "no_samples.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": no_samples}}))
    command = [sys.executable, "-m", "lit_mbldm", "fit", "--config", str(CONFIG)]
    command += ["--config", "no_samples.yaml"]
    command += [f"--{name}={value}" for name, value in options.items()]
    if resumed_from is not None:
        command += [f"--ckpt_path={resumed_from}"]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]


def losses(folder: Path) -> dict[int, float]:
    with (folder / "quickstart" / "run" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}


def last(folder: Path) -> Path:
    return folder / "quickstart" / "run" / "checkpoints" / "last.ckpt"


def weights(folder: Path) -> torch.Tensor:
    state = torch.load(last(folder), weights_only=True)["current_model_state"]
    return torch.cat([value.flatten().float() for value in state.values()])


@pytest.mark.slow
def test_the_number_of_processes_changes_neither_loss_nor_weights(tmp_path: Path) -> None:
    """Nor does a change from two to one in the middle of an epoch."""
    folders = [tmp_path / name for name in ("one", "two", "changed")]
    one, two, changed = folders
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as pool:  # of processes of their own
        list(pool.map(run, (one, two), (1, 2), (STEPS, 2)))
    run(changed, 1, STEPS, last(two))
    alone = losses(one)
    assert len(alone) == STEPS
    for other in (losses(two), losses(changed)):
        assert other == pytest.approx({step: alone[step] for step in other}, abs=1e-5)
    assert [*losses(two), *losses(changed)] == list(range(STEPS))
    torch.testing.assert_close(weights(changed), weights(one), rtol=1e-3, atol=1e-5)
