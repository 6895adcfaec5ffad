"""The main module of the process that tries torch out: a line of JSON for each finding.

A broken installation or driver may end it at any line; what it has told by then counts.
"""

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict

from lit_mbldm.doctor.machine import REINSTALL_TORCH
from lit_mbldm.doctor.report import INSTALL, Finding

_GPU = "/dev/nvidia0"
_ANOTHER = (
    "Install a torch built for this GPU and for the CUDA that its driver supports (pytorch.org"
    " lists the commands), or update the driver."
)


def main() -> None:
    """Try one after the other; without torch, no other."""
    for name, trial in {"torch": _torch, "torchvision": _torchvision}.items():
        try:
            for finding in trial():
                print(json.dumps(asdict(finding)), flush=True)
        except Exception as error:  # whatever a broken installation raises is the finding
            told = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            remedy = INSTALL if isinstance(error, ModuleNotFoundError) else REINSTALL_TORCH
            found = Finding(name, "does not work", f"{name} does not work: {told}.", remedy)
            print(json.dumps(asdict(found)), flush=True)
            return


def _torch() -> Iterator[Finding]:
    """For which devices torch is built, and whether it computes on each GPU."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    build = torch.version.cuda or torch.version.hip
    value = f"built for {'CUDA' if torch.version.cuda else 'ROCm'} {build}" if build else "for CPUs"
    if available:
        yield Finding("torch", value)
        yield from map(_gpu, range(torch.cuda.device_count()))
    elif torch.backends.mps.is_available():
        yield Finding("torch", f"{value} and MPS")
    elif not os.path.exists(_GPU) or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield Finding("torch", f"{value}; it sees no GPU and works on the CPU")
    else:
        reasons = " ".join(str(warning.message) for warning in caught)
        problem = f"There is an NVIDIA GPU, but this torch, {value}, cannot use it. {reasons}"
        yield Finding("torch", value, problem.strip(), f"See what `nvidia-smi` says. {_ANOTHER}")


def _gpu(index: int) -> Finding:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    bf16 = "bf16" if gpu.major >= 8 else "no bf16: train with precision 16-mixed or 32"
    value = f"{gpu.name}, {gpu.total_memory / 1e9:.1f} GB, {gpu.major}.{gpu.minor}, {bf16}"
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        problem = f"GPU {index} does not compute: {str(error).splitlines()[0]}."
        remedy = f"{_ANOTHER} Or leave it out by CUDA_VISIBLE_DEVICES, or end what fills it."
        return Finding(f"GPU {index}", value, problem, remedy)
    return Finding(f"GPU {index}", value)


def _torchvision() -> Iterator[Finding]:
    import torch
    from torchvision.ops import nms  # type: ignore[import-untyped]

    # its compiled part belongs to one version of torch
    nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    yield Finding("torchvision", "loads with this torch")


if __name__ == "__main__":
    main()
