"""What is exported as ONNX draws the images that torch draws."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_mbldm.cli import main
from lit_mbldm.codecs import CoefficientLatent, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import ContinuousDiffusion
from lit_mbldm.zoo import load_pretrained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCRIPT = Path(__file__).parents[2] / "examples" / "onnx_sampler.py"


def model(latent: Latent, process: GaussianProcess) -> ContinuousDiffusion:
    """An untrained model of two classes, on overlapping patches."""
    torch.manual_seed(0)
    unet = UNet(None, None, 8, (1, 2), 1)
    made = ContinuousDiffusion(
        "jpq-32-4x4", unet, process, 16, latent=latent, class_names=["a", "b"]
    )
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if not latent.fitted:
        images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
        latent.fit(latent.moments(made.codec.encode(images), images))
    return made.eval()


@pytest.mark.parametrize(
    ("latent", "process"),
    [
        (CoefficientLatent(6), GaussianProcess(40, "cosine", "v", self_conditioning=False)),
        (IndexLatent(), GaussianProcess(40, "linear", "eps")),
    ],
)
def test_numpy_draws_the_images_of_torch(
    latent: Latent, process: GaussianProcess, tmp_path: Path
) -> None:
    made = model(latent, process)
    save_entry(made, tmp_path / "entry")
    main(["export", str(tmp_path / "entry"), str(tmp_path / "out"), "--steps", "1", "--onnx"])
    load_pretrained(tmp_path / "out")  # an entry still
    spec = importlib.util.spec_from_file_location("onnx_sampler", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sampler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sampler)
    noise = SampleStreams([(5, number) for number in range(3)], "cpu").normal(made.latent_shape)
    expected = made.sample(3, 4, seed=5, sampler="ddim", guidance=1.5, label=["b", "a"])
    exported = sampler.OnnxModel(tmp_path / "out" / "onnx")
    found = sampler.draw(exported, noise.numpy(), np.array([1, 0, 1]), 4, 1.5)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.numpy()).max() <= 1
    assert expected.float().std() > 10
    arguments = ["", str(tmp_path / "out" / "onnx"), "--steps", "2"]
    without = f"import sys; sys.modules['torch'] = None; sys.argv = {arguments}"
    code = f"{without}; import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "samples.png").exists()
