"""A denoiser's forward pass on one thread of a CPU by torch, onnxruntime and OpenVINO.

    pip install '.[onnx]' openvino
    lit-mbldm export eurosat-64 entry --onnx
    python benchmarks/onnx_speed.py entry [--batch 1 16]

Milliseconds of processor time are medians of runs in turns; OpenVINO is left out where it is not
installed. The last column is the relative error of the output to torch's.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from timing import medians

from lit_mbldm.zoo import load_pretrained

Inputs = dict[str, NDArray[np.generic]]


def by_onnxruntime(path: Path) -> Callable[[Inputs], NDArray[np.float32]]:
    """A run of the network by onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    known = {one.name for one in session.get_inputs()}
    return lambda told: session.run(None, {k: v for k, v in told.items() if k in known})[0]


def by_openvino(path: Path) -> Callable[[Inputs], NDArray[np.float32]]:
    """A run of the network by OpenVINO in float32, as the others compute."""
    import openvino as ov

    how = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(path, "CPU", how)
    known = {one.any_name for one in compiled.inputs}
    return lambda told: compiled({k: v for k, v in told.items() if k in known})[0]


def main() -> None:
    """Print a row for each batch and runtime."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("entry", type=Path, help="folder that `lit-mbldm export --onnx` wrote")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_pretrained(options.entry)
    path = options.entry / "onnx" / "denoiser.onnx"

    @torch.inference_mode()
    def by_torch(told: Inputs) -> NDArray[np.float32]:
        z, when, estimate, label = (torch.from_numpy(value) for value in told.values())
        return model.denoiser(z, when, estimate, label).numpy()

    runs = {"torch": by_torch, "onnxruntime": by_onnxruntime(path)}
    if find_spec("openvino"):
        runs["OpenVINO"] = by_openvino(path)
    print("| batch | runtime | ms | over torch | relative error |\n|---|---|---|---|---|")
    for batch in options.batch:
        rng = np.random.default_rng(0)
        z = rng.standard_normal((batch, *model.latent_shape), np.float32)
        told: Inputs = {
            "z_t": z,
            "time": np.full(batch, 0.5, np.float32),
            "self_condition": np.zeros_like(z),
            "label": np.arange(batch) % max(1, len(model.class_names or ())),
        }
        tasks = {name: partial(run, told) for name, run in runs.items()}
        found = medians(tasks, options.repetitions, time.process_time, warm_up=3)
        exact = by_torch(told)
        for name, seconds in found.items():
            error = np.linalg.norm(runs[name](told) - exact) / np.linalg.norm(exact)
            ratio = seconds / found["torch"]
            print(f"| {batch} | {name} | {1000 * seconds:.1f} | {ratio:.2f} | {error:.0e} |")


if __name__ == "__main__":
    main()
