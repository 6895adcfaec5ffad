"""The main module of the process that tries torch out: a line of JSON for each thing it finds.

A broken installation or driver may end it at any line; what it has told by then counts.
"""

import ctypes
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Try everything in turn."""
    for name, trial in TRIALS.items():
        _tell({"name": name})  # for the case that the trial ends this process
        try:
            _tell({"name": name, "value": trial()})
        except Exception as error:  # whatever a broken installation raises is the finding
            lines = str(error).strip().splitlines() or [""]
            _tell({"name": name, "error": f"{type(error).__name__}: {lines[0][:300]}"})


def _tell(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def _torch() -> dict[str, Any]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    return {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "available": available,
        "why_not": " ".join(str(warning.message) for warning in caught),
    }


def _driver() -> dict[str, int] | None:
    """Highest CUDA version of the NVIDIA driver, such as 12040, and its GPUs; None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value == 0:  # the library without a driver
        return None
    status = driver.cuInit(0)
    if status == 0:
        driver.cuDeviceGetCount(ctypes.byref(count))
    return {"version": version.value, "count": count.value, "status": status}


def _gpus() -> list[dict[str, Any]]:
    import torch

    return [_gpu(index) for index in range(torch.cuda.device_count())]


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    found = {
        "name": properties.name,
        "memory": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }
    try:
        with torch.cuda.device(index):
            found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
            found["free"] = torch.cuda.mem_get_info()[0]
            _compute(f"cuda:{index}")
    except RuntimeError as error:
        found["error"] = str(error).strip().splitlines()[0]
    return found


def _mps() -> bool:
    import torch

    if not torch.backends.mps.is_available():
        return False
    _compute("mps")
    return True


def _compute(device: str) -> None:
    import torch

    total = torch.ones(8, device=device).sum().item()
    if total != 8:
        raise RuntimeError(f"it adds 8 ones to {total}")


def _torchvision() -> None:
    import torch
    from torchvision.ops import nms  # type: ignore[import-untyped]

    # its compiled part belongs to one version of torch
    nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)


def _caches() -> dict[str, str]:
    import torch

    from lit_mbldm.training.callbacks.reference_features import default_cache

    return {
        "Reference features": str(default_cache()),
        "FID weights": str(Path(torch.hub.get_dir()) / "checkpoints"),
    }


TRIALS: dict[str, Callable[[], Any]] = {
    "torch": _torch,
    "driver": _driver,
    "gpus": _gpus,
    "mps": _mps,
    "torchvision": _torchvision,
    "caches": _caches,
}

if __name__ == "__main__":
    main()
