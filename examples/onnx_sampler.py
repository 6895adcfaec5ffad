"""Draw pictures from the ONNX files of an exported model, with numpy and onnxruntime alone.

    lit-mbldm export eurosat-64 entry --onnx
    python examples/onnx_sampler.py entry/onnx -n 16 --steps 25 --guidance 1.5 --out grid.png

The loop is DDIM's (Song et al. 2021, equation 12) of a continuous model, or the consistency
sampler's of one tuned for few steps: latents z (B, C, h, w), times t from T, noise, to 0.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


class OnnxModel:
    """A denoiser and a decoder, and what the denoiser's file says of them."""

    def __init__(self, folder: Path) -> None:
        self.denoiser = ort.InferenceSession(folder / "denoiser.onnx")
        self.decoder = ort.InferenceSession(folder / "decode.onnx")
        facts = json.loads(self.denoiser.get_modelmeta().custom_metadata_map["lit_mbldm"])
        self.process = facts["process"]["init_args"]
        if "objective" not in self.process:
            raise SystemExit("Expected a continuous model, got one of codes or bits.")
        self.is_consistency = facts["process"]["class_path"].endswith("ConsistencyProcess")
        self.shape, self.limit = facts["latent_shape"], facts["limit"]
        self.class_names, log_a = facts["class_names"], np.array(facts["log_alpha_bar"])  # (T+1,)
        self.alpha, self.sigma = np.exp(log_a / 2), np.sqrt(-np.expm1(log_a))

    def predict(self, z: Array, time: float, estimate: Array, labels: NDArray[np.int64]) -> Array:
        """What the network returns at t/T, of an earlier estimate and labels, -1 for none."""
        times = np.full(len(z), time, np.float32)
        told = {"z_t": z, "time": times, "self_condition": estimate, "label": labels}
        known = {one.name for one in self.denoiser.get_inputs()}
        return self.denoiser.run(None, {k: v for k, v in told.items() if k in known})[0]

    def decode(self, z0: Array) -> NDArray[np.uint8]:
        """Images (B, 3, H, W) of z_0."""
        return self.decoder.run(None, {"z_0": z0})[0]


def draw(
    model: OnnxModel,
    z: Array,
    labels: NDArray[np.int64],
    steps: int,
    guidance: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Draw images (B, 3, H, W) from noise z (B, C, h, w), of labels (B,)."""
    T, estimate = len(model.alpha) - 1, np.zeros_like(z)
    times = [round(T * (steps - i) / steps) for i in range(steps + 1)]
    for t, s in pairwise(times):
        output = model.predict(z, t / T, estimate, labels)
        if guidance != 1:  # classifier-free (Ho & Salimans 2022)
            poorer = model.predict(z, t / T, estimate, np.full_like(labels, -1))
            output = poorer + np.float32(guidance) * (output - poorer)
        alpha, sigma = np.float32(model.alpha[t]), np.float32(model.sigma[t])
        meant = {"eps": (z - sigma * output) / alpha, "v": alpha * z - sigma * output, "x0": output}
        z0 = meant[model.process["objective"]]
        if model.limit is not None:
            z0 = z0.clip(-model.limit, model.limit)
        if model.is_consistency:
            noise = rng.standard_normal(z.shape, np.float32)
        else:
            noise = (z - alpha * z0) / sigma
        z = np.float32(model.alpha[s]) * z0 + np.float32(model.sigma[s]) * noise
        if model.process.get("self_conditioning"):
            estimate = z0
    return model.decode(z)


def main() -> None:
    """Draw a row of pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    options = parser.parse_args()
    model = OnnxModel(options.folder)
    rng = np.random.default_rng(options.seed)
    noise = rng.standard_normal((options.n, *model.shape), np.float32)
    labels = np.arange(options.n) % max(len(model.class_names), 1)  # the classes in turn
    images = draw(model, noise, labels, options.steps, options.guidance, rng)
    Image.fromarray(np.hstack(images.transpose(0, 2, 3, 1))).save(options.out)


if __name__ == "__main__":
    main()
