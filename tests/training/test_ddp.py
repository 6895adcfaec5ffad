import re
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_two_processes_train_draw_and_end(tmp_path: Path) -> None:
    """A picture drawn by one rank alone must not leave the other waiting."""
    options = {
        "trainer.accelerator": "cpu",
        "trainer.devices": "2",
        "trainer.strategy": "ddp",
        "trainer.max_steps": "2",
        "data.crop_size": "32",
        "data.batch_size": "4",
        "data.crops_per_epoch": "16",
        "model.image_size": "32",
        "model.denoiser.base_channels": "16",
        "model.denoiser.blocks_per_level": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "lit_mbldm", "fit", "--config", str(CONFIG)]
        + [f"--{name}={value}" for name, value in options.items()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(re.findall(r"Make more: lit-mbldm sample", ran.stdout)) == 1
    folder = tmp_path / "runs" / "quickstart" / "version_0"
    assert (folder / "samples.png").exists()
    assert (folder / "pictures" / "samples-0000002.png").exists()
    assert (folder / "checkpoints" / "last.ckpt").exists()
