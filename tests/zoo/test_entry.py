import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from entries import assert_same
from torch import nn

from lit_mbldm import data
from lit_mbldm.cli import main
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.about import About, Figure
from lit_mbldm.entries.entry import read_files, save_entry
from lit_mbldm.errors import InputError
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion
from lit_mbldm.zoo import load_pretrained


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_an_entry_survives_the_disk(tmp_path: Path, name: str) -> None:
    module = tiny.MAKERS[name]()
    about = About(license="cc0-1.0", steps=7, figures=(Figure("FID", 12.5),))
    save_entry(module, tmp_path / "a" / "entry", about)
    again = load_pretrained(str(tmp_path / "a" / "entry"))
    assert_same(again, module)
    assert again.about == about
    names = {path.name for path in (tmp_path / "a" / "entry").iterdir()}
    refiner = {"refiner"} if name == "refined" else set()
    assert names == {"config.json", "model.safetensors"} | refiner
    if name == "refined":
        assert_same(again.refiner, module.refiner)
    with pytest.raises(InputError, match="already holds"):
        save_entry(module, tmp_path / "a" / "entry")


def test_what_was_loaded_is_written_as_it_was(tmp_path: Path) -> None:
    save_entry(tiny.refined(), tmp_path / "a", About(command="lightning fit", steps=3))
    save_entry(load_pretrained(tmp_path / "a"), tmp_path / "b")
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test_loaded_weights_can_be_trained(tmp_path: Path) -> None:
    save_entry(tiny.continuous(), tmp_path / "model")
    model = load_pretrained(tmp_path / "model").train()
    batch = {"codes": torch.zeros(2, 4, 4, 4, dtype=torch.uint8), "index": torch.arange(2)}
    optimizer = model.configure_optimizers()
    before = model.denoiser.head.weight.clone()
    model.loss(batch, (0,), model.train_by_time).backward()
    optimizer.step()
    assert not torch.equal(model.denoiser.head.weight, before)


PHOTOS = Path(data.__file__).parent / "photos"
KILLED = """
import os, signal, sys
from lit_mbldm.cli import main
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_a_fit_that_is_killed_as_it_writes_is_run_again(tmp_path: Path) -> None:
    out = tmp_path / "codec"
    argv = ["codec", "fit", "PQ-8-8-8", str(PHOTOS), str(out), "--max-patches=300"]
    ran = subprocess.run([sys.executable, "-c", KILLED, *argv], timeout=100)
    assert ran.returncode == -signal.SIGKILL
    assert [path for path in out.rglob("*") if path.is_file()]
    main(argv)
    assert {path.name for path in out.glob("[!.]*")} == {"config.json", "model.safetensors"}


def test_an_entry_without_its_config_is_finished(tmp_path: Path) -> None:
    save_entry(tiny.refined(), tmp_path)
    (tmp_path / "config.json").unlink()
    save_entry(tiny.refined(), tmp_path)
    assert_same(load_pretrained(tmp_path), tiny.refined())


class Elsewhere(nn.Module):
    in_channels = out_channels = 4


def test_a_module_that_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    process = GaussianProcess(10, codebook_size=4)
    own = ContinuousDiffusion(tiny.codec(), Elsewhere(), process, 8)
    clamp = GaussianProcess(10, codebook_size=4, min_snr_gamma=float("inf"))
    infinite = ContinuousDiffusion(tiny.codec(), UNet(4, 4, 4, (1,), 1), clamp, 8)
    rough = tiny.continuous()
    rough.denoiser.bfloat16()
    for module, reason in (
        (own, "Only classes inside lit_mbldm are loaded.*Elsewhere"),
        (infinite, "Out of range float"),
        (rough, "cannot be published.*float32.*bfloat16"),
        (UNet(4, 4, 4, (1,), 1), "UNet is neither a codec nor a model"),
    ):
        with pytest.raises(ValueError, match=reason):
            save_entry(module, tmp_path / "entry")
    assert not (tmp_path / "entry").exists()
