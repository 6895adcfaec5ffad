"""The main module of the process that tries torch out: a line of JSON for each finding.

A broken installation or driver may end it at any line; what it has told by then counts.
"""

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict

from lit_mbldm.doctor.machine import REINSTALL_TORCH
from lit_mbldm.doctor.report import INSTALL, Finding, gigabytes

_GPU = "/dev/nvidia0"
_ANOTHER = (
    "Install a torch built for this GPU and for the CUDA that its driver supports (pytorch.org"
    " lists the commands), or update the driver."
)


def main() -> None:
    """Try one after the other; without torch, no other."""
    for name, trial in {"torch": _torch, "torchvision": _torchvision, "MPS": _mps}.items():
        print(json.dumps({"trying": name}), flush=True)  # for the case that it ends this process
        try:
            for finding in trial():
                print(json.dumps(asdict(finding)), flush=True)
        except Exception as error:  # whatever a broken installation raises is the finding
            told = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            remedy = INSTALL if isinstance(error, ModuleNotFoundError) else REINSTALL_TORCH
            found = Finding(name, "does not work", f"{name} does not work: {told}.", remedy)
            print(json.dumps(asdict(found)), flush=True)
            if name == "torch":
                return


def _torch() -> Iterator[Finding]:
    """For which devices torch is built, and whether it computes on each GPU."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    cuda, hip = torch.version.cuda, torch.version.hip
    value = f"built for CUDA {cuda}" if cuda else f"built for ROCm {hip}" if hip else "for CPUs"
    if available:
        yield Finding("torch", value)
        yield from map(_gpu, range(torch.cuda.device_count()))
    elif not os.path.exists(_GPU) or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield Finding("torch", f"{value}; it sees no GPU and works on the CPU")
    else:
        reasons = " ".join(str(warning.message) for warning in caught)
        problem = f"There is an NVIDIA GPU, but this torch, {value}, cannot use it. {reasons}"
        yield Finding("torch", value, problem.strip(), f"See what `nvidia-smi` says. {_ANOTHER}")


def _gpu(index: int) -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(index)
    name, capability = f"GPU {index}", f"{properties.major}.{properties.minor}"
    bf16 = "bf16" if properties.major >= 8 else "no bf16: train with precision 16-mixed or 32"
    value = f"{properties.name}, {gigabytes(properties.total_memory)}, {capability}, {bf16}"
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        problem = f"{name} does not compute: {str(error).splitlines()[0]}."
        remedy = f"{_ANOTHER} Or leave it out by CUDA_VISIBLE_DEVICES, or end what fills it."
        return Finding(name, value, problem, remedy)
    return Finding(name, value)


def _torchvision() -> Iterator[Finding]:
    import torch
    from torchvision.ops import nms  # type: ignore[import-untyped]

    # its compiled part belongs to one version of torch
    nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    yield Finding("torchvision", "loads with this torch")


def _mps() -> Iterator[Finding]:
    import torch

    if torch.backends.mps.is_available():
        torch.ones(8, device="mps").sum().item()
        yield Finding("MPS", "usable")


if __name__ == "__main__":
    main()
