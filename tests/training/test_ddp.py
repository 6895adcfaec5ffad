import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbldm.zoo import load_pretrained

PAIR = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("config", "strategy"),
    [
        ("quickstart", "ddp"),
        pytest.param("small64_fdm", "ddp_find_unused_parameters_true", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_draw_and_end(tmp_path: Path, config: str, strategy: str) -> None:
    """A picture drawn by one rank alone must not leave the other waiting.

    Nor may one rank have a batch of another stage, in which the two would differ in shape.
    """
    options = {
        "trainer.accelerator": "cpu",
        "trainer.devices": "2",
        "trainer.strategy": strategy,
        "trainer.max_steps": "2",
        "sample_every": "2",
        "data.train": "fruits",
        "data.num_workers": "0",
        "data.image_size": "32",
        "data.batch_size": "4",
        "model.image_size": "32",
        "model.denoiser.base_channels": "8",
        "model.denoiser.blocks_per_level": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "lit_mbldm", "fit", "--config", str(CONFIGS / f"{config}.yaml")]
        + [f"--{name}={value}" for name, value in options.items()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(re.findall(r"Make more: lit-mbldm sample", ran.stdout)) == 1
    folder = tmp_path / "runs" / config / "version_0"
    assert (folder / "samples.png").exists()
    assert (folder / "pictures" / "samples-0000002.png").exists()
    about = load_pretrained(folder / "checkpoints" / "last.ckpt").about
    assert about.config["trainer"]["max_steps"] == 2
    assert about.steps == 2


def test_two_processes_share_out_the_data_and_learn_the_same(unbroken_pair: Any) -> None:
    def told(what: str) -> list[str]:
        return [(unbroken_pair.folder / f"{what}{rank}.txt").read_text() for rank in range(2)]

    read = [[json.loads(line) for line in lines.splitlines()] for lines in told("rank")]
    epochs = [epoch for epoch, _ in read[0]]
    assert epochs == [epoch for epoch, _ in read[1]] == [0] * 10 + [1] * 10 + [2] * 4
    for part in (slice(10), slice(10, 20)):
        numbers = [n for own in read for _, batch in own[part] for n in batch]
        assert sorted(numbers) == list(range(40))
    assert len({*told("weights")}) == 1
    assert told("left") == ["False"] * 2, "gloo's threads may abort a process that ends"
    assert sorted(path.name for path in (unbroken_pair.version / "checkpoints").iterdir()) == [
        "epoch=2-step=24.ckpt",
        "last.ckpt",
    ]


@pytest.mark.slow
def test_the_number_of_processes_changes_neither_loss_nor_weights(new_fit: Any) -> None:
    """One with a batch of eight, two with four each, and from two to one within an epoch."""
    alike = [
        "--data.in_memory=true",
        "--trainer.log_every_n_steps=1",
        "--model.init_args.denoiser.init_args.dropout=0",
    ]
    one, changed = (new_fit(*alike, "--data.batch_size=8") for _ in range(2))
    two = new_fit(*alike, *PAIR[:2], "--data.batch_size=4")
    one.run("--trainer.max_steps=6")
    two.run(code=75, PROBE_SIGNAL="SIGTERM step 1 0 self")
    last = two.version / "checkpoints" / "last.ckpt"
    changed.run("--trainer.max_steps=6", f"--ckpt_path={last}")
    alone = losses(one)
    assert [*alone] == [*losses(two), *losses(changed)] == list(range(6))
    assert losses(two) | losses(changed) == pytest.approx(alone, abs=1e-5)
    torch.testing.assert_close(weights(changed), weights(one), rtol=1e-3, atol=1e-5)


def losses(fit: Any) -> dict[int, float]:
    return {step: min(v) for (tag, step), v in fit.scalars().items() if tag == "train/loss"}


def weights(fit: Any) -> torch.Tensor:
    state = {k: v for k, v in fit.last().items() if k.startswith("/current_model_state/")}
    return torch.cat([value.flatten().float() for value in state.values()])
