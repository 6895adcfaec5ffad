"""What is exported as ONNX draws the images that torch draws."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lit_mbldm.cli import main
from lit_mbldm.codecs import CoefficientLatent, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.processes import CategoricalProcess, ConsistencyProcess, GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import (
    CategoricalDiffusion,
    ConsistencyDiffusion,
    ContinuousDiffusion,
    DiffusionModule,
)
from lit_mbldm.zoo import load_pretrained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCRIPT = Path(__file__).parents[2] / "examples" / "onnx_sampler.py"


def model(latent: Latent, process: GaussianProcess) -> ContinuousDiffusion:
    """An untrained model of two classes, on overlapping patches."""
    torch.manual_seed(0)
    unet = UNet(None, None, 8, (1, 2), 1)
    few = isinstance(process, ConsistencyProcess)
    module = ConsistencyDiffusion if few else ContinuousDiffusion
    made = module("jpq-32-4x4", unet, process, 16, latent=latent, class_names=["a", "b"])
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if not latent.fitted:
        images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
        latent.fit(latent.moments(made.codec.encode(images), images))
    return made.eval()


class Streamed:
    """In the place of numpy's generator: the noise of torch's streams."""

    def __init__(self, streams: SampleStreams) -> None:
        self.streams = streams

    def standard_normal(self, shape: tuple[int, ...], _: object) -> NDArray[np.float32]:
        return self.streams.normal(shape[1:]).numpy()


def sampler() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("onnx_sampler", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(made: DiffusionModule, folder: Path) -> Path:
    """The folder of a model's ONNX files, exported by the command."""
    save_entry(made, folder / "entry")
    main(["export", str(folder / "entry"), str(folder / "out"), "--steps", "1", "--onnx"])
    load_pretrained(folder / "out")  # an entry still
    return folder / "out" / "onnx"


@pytest.mark.parametrize(
    ("latent", "process"),
    [
        (CoefficientLatent(6), GaussianProcess(40, "cosine", "v", self_conditioning=False)),
        (CoefficientLatent(6), ConsistencyProcess(40)),
        (IndexLatent(), GaussianProcess(40, "linear", "eps")),
    ],
)
def test_numpy_draws_the_images_of_torch(
    latent: Latent, process: GaussianProcess, tmp_path: Path
) -> None:
    made = model(latent, process)
    name = "consistency" if isinstance(process, ConsistencyProcess) else "ddim"
    expected = made.sample(3, 4, seed=5, sampler=name, guidance=1.5, label=["b", "a"])
    folder = export(made, tmp_path)
    rng = Streamed(SampleStreams([(5, number) for number in range(3)], "cpu"))
    noise = rng.standard_normal((3, *made.latent_shape), None)
    found = sampler().draw(sampler().OnnxModel(folder), noise, np.array([1, 0, 1]), 4, 1.5, rng)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.numpy()).max() <= 1
    assert expected.float().std() > 10
    arguments = ["", str(folder), "--steps", "2"]
    without = f"import sys; sys.modules['torch'] = None; sys.argv = {arguments}"
    code = f"{without}; import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "samples.png").exists()


def test_a_model_of_codes_is_refused(tmp_path: Path) -> None:
    unet = UNet(base_channels=8, channel_multipliers=(1, 2), blocks_per_level=1)
    made = CategoricalDiffusion("jpq-32-4x4", unet, CategoricalProcess(10), 16).eval()
    with pytest.raises(SystemExit, match="continuous model"):
        sampler().OnnxModel(export(made, tmp_path))
