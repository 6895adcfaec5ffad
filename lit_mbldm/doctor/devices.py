"""What there is to compute on, and whether torch can use it."""

import os
from pathlib import Path
from typing import Any

from lit_mbldm.doctor.missing import named_in
from lit_mbldm.doctor.section import Problem, Section, gigabytes
from lit_mbldm.doctor.torch_findings import TorchFindings
from lit_mbldm.parallel.cores import cores

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_ASK_NVIDIA = "See what `nvidia-smi` says; after an update of the driver, restart the machine."
_REINSTALL = (
    "Install torch and torchvision together, in versions that belong together: `pip install"
    " --upgrade --force-reinstall torch torchvision` (pytorch.org lists the commands for each"
    " CUDA version)."
)


def examine_devices(findings: TorchFindings) -> Section:
    """Cores, memory, GPUs, and whether torch and torchvision work."""
    section = Section()
    section.row("CPU", f"{cores()} cores")
    section.row("Memory", _memory())
    error = findings.error("torch") if findings.tried("torch") else findings.ended
    if error:
        what = f"torch does not load: {error}. Nothing can be trained, encoded or sampled."
        section.row("torch", "does not load", named_in(error) or Problem(what, _REINSTALL))
        return section
    _cuda(section, findings)
    for index, gpu in enumerate(findings.value("gpus") or []):
        _gpu(section, index, gpu)
    if error := findings.error("mps"):
        what = f"Apple's GPU cannot be used: {error}."
        section.row("MPS", "fails", Problem(what, "Work on the CPU: `--device cpu`."))
    elif findings.tried("mps"):
        section.row("MPS", "usable" if findings.value("mps") else "not available")
    if error := findings.error("torchvision"):
        what = f"torchvision does not work with this torch: {error}. Scores (FID, KID) need it."
        section.row("torchvision", "does not load", named_in(error) or Problem(what, _REINSTALL))
    elif findings.tried("torchvision"):
        section.row("torchvision", "loads with this torch")
    return section


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    limits = [int(text) for path in _LIMITS if (text := _read(path)).isdecimal()]
    if limits and min(limits) < total:
        return f"{gigabytes(min(limits))} (this container's limit) of {gigabytes(total)}"
    return gigabytes(total)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cuda(section: Section, findings: TorchFindings) -> None:
    """Whether torch's build, the driver and the GPUs fit."""
    built, driver = findings.value("torch"), findings.value("driver")
    if error := findings.error("driver"):
        what = f"The NVIDIA driver breaks down when it is asked: {error}."
        section.row("CUDA", "fails", Problem(what, _ASK_NVIDIA))
        return
    if built["hip"]:
        section.row("ROCm", f"torch is built for {built['hip']}")
        return
    told = f"torch is built {'for ' + built['cuda'] if built['cuda'] else 'without it'}"
    if driver:
        told += f", the driver supports up to {_dotted(driver['version'])}"
    section.row("CUDA", told, _misfit(built, driver, findings.error("gpus")))
    if built["cuda"] and not driver:
        section.notes.append(
            "torch can use NVIDIA GPUs, but there is no driver of one: training runs on the CPU."
        )
    elif built["cuda"] and driver["count"] == 0 and driver["status"] in (0, _NO_DEVICE):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        section.notes.append(
            "An NVIDIA driver is there, but no GPU is to be seen"
            f"{'' if hidden is None else f' (CUDA_VISIBLE_DEVICES={hidden!r})'}: training runs on"
            " the CPU."
        )


def _misfit(
    built: dict[str, Any], driver: dict[str, int] | None, gpus_error: str
) -> Problem | None:
    if not driver or driver["status"] == _NO_DEVICE:
        return None
    supported = _dotted(driver["version"])
    if not built["cuda"]:
        what = "There is an NVIDIA GPU, but this torch is built without CUDA and cannot use it."
        return Problem(what, _REINSTALL) if driver["count"] else None
    major = int(built["cuda"].split(".")[0])  # minor versions are compatible
    if driver["version"] // 1000 < major:
        return Problem(
            f"The NVIDIA driver is too old: it supports CUDA up to {supported}, and this torch is"
            f" built for {built['cuda']}. Training runs on the CPU.",
            f"Update the driver, or install a torch built for CUDA {supported.split('.')[0]}"
            " (pytorch.org lists the commands).",
        )
    if (built["available"] and not gpus_error) or driver["status"] == driver["count"] == 0:
        return None
    reason = built["why_not"] or gpus_error or f"cuInit gives {driver['status']}"
    return Problem(f"CUDA cannot be used: {reason}", _ASK_NVIDIA)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _gpu(section: Section, index: int, gpu: dict[str, Any]) -> None:
    told = [gpu["name"], gigabytes(gpu["memory"])]
    if "free" in gpu:
        told[1] += f" ({gigabytes(gpu['free'])} free)"
    told.append(f"compute capability {gpu['capability']}")
    if "bf16" in gpu:
        told.append("bf16" if gpu["bf16"] else "no bf16: train with precision 16-mixed or 32")
    problem = None
    if "error" in gpu:
        problem = Problem(
            f"GPU {index} ({gpu['name']}) is there but does not compute: {gpu['error']}",
            "Install a torch built for its compute capability (pytorch.org lists the commands), or"
            " leave it out by CUDA_VISIBLE_DEVICES; where another program fills it, end that.",
        )
    section.row(f"GPU {index}", ", ".join(told), problem)
