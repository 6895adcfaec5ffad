import importlib.metadata
import importlib.resources
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_httpserver import HTTPServer

from lit_mbldm.doctor import machine
from lit_mbldm.doctor.installation import examine_commands, examine_versions
from lit_mbldm.doctor.report import Finding, print_report

GOOD, BAD = "hf_goodTokenOfAnna", "hf_badTokenOfNobody"
OURS = f"#!{sys.executable}\nimport sys\nfrom lit_mbldm.cli import main\nsys.exit(main())\n"


def distribution(folder: Path, name: str, requires: str = "") -> None:
    """Put a distribution's metadata, with a command `lightning`, in a folder of the path."""
    info = folder / f"{name.replace('-', '_')}-9.8.7.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 9.8.7"]
    lines += [f"Requires-Dist: {text}" for text in requires.split("|") if text]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nlightning = lit_mbldm.cli:main\n")


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def problems(findings: Iterator[Finding]) -> dict[str, str]:
    return {found.problem: found.remedy for found in findings if found.problem}


def values(findings: Iterator[Finding]) -> dict[str, str]:
    return {found.name: found.value for found in findings}


def doctor(folder: Path, *command: str | Path, **variables: str) -> tuple[int, str]:
    """The status and the text, lines joined, of a doctor that knows no login and no cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_"))}
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=120,
        env={**kept, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1", **variables},
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.returncode, " ".join(ran.stdout.split())


def hub_alone(setting: str = "") -> tuple[str, str, str]:
    """The command that examines the Hub alone."""
    code = f"import sys, lit_mbldm.doctor.machine as m, lit_mbldm.doctor.report as r\n{setting}\n"
    return sys.executable, "-c", f"{code}sys.exit(r.print_report({{'Hub': m.examine_hub}}))"


@pytest.fixture
def hub(httpserver: HTTPServer) -> str:
    """Its address; it knows one token."""
    login = {"Authorization": f"Bearer {GOOD}"}
    httpserver.expect_request("/api/whoami-v2", headers=login).respond_with_json({"name": "anna"})
    httpserver.expect_request("/api/whoami-v2").respond_with_json({"error": "no"}, 401)
    httpserver.expect_request("/api/models").respond_with_json([])
    return httpserver.url_for("").rstrip("/")


def test_a_sound_installation(hub: str, tmp_path: Path) -> None:
    for name in ("lightning", "lit-mbldm"):
        script(tmp_path / "bin" / name, OURS)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    options = {"HF_ENDPOINT": hub, "HF_TOKEN": GOOD, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    status, told = doctor(tmp_path, sys.executable, "-m", "lit_mbldm", "doctor", **options)
    if "Only " not in told:  # are free on this machine's disk
        assert status == 0
        assert told.endswith("Nothing is wrong.")
    for name in ("torch", "lightning", "numpy"):
        assert f" {name} {importlib.metadata.version(name)} " in told
    assert "torchvision loads with this torch" in told
    assert f"{tmp_path / 'bin' / 'lightning'} (runs lit_mbldm.cli by" in told
    assert "anna (token from the variable HF_TOKEN)" in told
    assert f"free for {tmp_path / 'hf' / 'hub'}" in told
    assert GOOD[3:] not in told


@pytest.mark.parametrize(
    ("token", "told"),
    [("", "nobody; private models"), (BAD, "The Hub refuses the token from the variable HF_TOKEN")],
)
def test_logins(hub: str, tmp_path: Path, token: str, told: str) -> None:
    status, text = doctor(tmp_path, *hub_alone(), HF_ENDPOINT=hub, HF_TOKEN=token)
    assert told in text
    assert status == bool(token)
    assert ("HF_TOKEN, if set, goes before that login" in text) == bool(token)
    assert "badToken" not in text


@pytest.mark.parametrize(
    ("offline", "told"), [("0", "no: ReadTimeout"), ("1", "not asked: offline mode")]
)
def test_a_hub_that_does_not_answer(offline: str, told: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"HF_ENDPOINT": f"http://anna:pw123@127.0.0.1:{silent.getsockname()[1]}"}
        command = hub_alone("m._HUB_SECONDS = 0.5")
        status, text = doctor(tmp_path, *command, HF_HUB_OFFLINE=offline, **options)
    assert status == 0
    assert told in text
    assert "pw123" not in text


def test_an_environment_without_packages(tmp_path: Path) -> None:
    needs = "torch>=2|numpy|huggingface_hub>=1|faiss-cpu|pyyaml|packaging"
    distribution(tmp_path / "path", "lit-mbldm", needs)
    venv.create(tmp_path / "venv", symlinks=True)
    command = (tmp_path / "venv" / "bin" / "python", "-m", "lit_mbldm", "doctor")
    for package, told in {
        "lit_mbldm": "Versions cannot be examined: ModuleNotFoundError",
        "packaging": "faiss-cpu is not installed, and lit-mbldm needs it.",
    }.items():
        installed = Path(str(importlib.resources.files(package)))
        (tmp_path / "path" / package).symlink_to(installed)
        status, text = doctor(tmp_path, *command, PYTHONPATH=str(tmp_path / "path"))
        assert status == 1
        assert told in text
        assert " lit-mbldm 9.8.7 " in text
        assert "lightning belongs to lit-mbldm 9.8.7 " in text
        assert "torch does not work: ModuleNotFoundError" in text
        assert "Remedy: Install lit-mbldm with all that it needs: `pip install lit-mbldm`" in text
        assert f"free for {tmp_path}" in text


def test_requirements_that_are_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires = "torch>=999|numpy>=1|absent>=2|other; python_version<'3'|no-weights; extra=='eval'"
    distribution(tmp_path, "lit-mbldm", requires)
    monkeypatch.syspath_prepend(tmp_path)
    torch = importlib.metadata.version("torch")
    found = problems(examine_versions())
    assert found[f"torch {torch} is installed, but lit-mbldm needs >=999."] == (
        "`pip install 'torch>=999'`"
    )
    assert "absent is not installed, and lit-mbldm needs it." in found
    assert len(found) == 2
    assert "pip install 'lit-mbldm[eval]'" in values(examine_versions())["Note"]


FAKE = """
import __main__, warnings
from types import SimpleNamespace as N

def is_available():
    warnings.warn(WHY) if WHY else None
    return GPUS > 0

def ones(*_, **__):
    if GPUS and WHY:
        raise RuntimeError(WHY)
    return N(sum=lambda: N(item=lambda: 8))

gpu = N(name='NVIDIA A1', total_memory=80e9, major=9, minor=0)
cuda = N(is_available=is_available, device_count=lambda: GPUS, get_device_properties=lambda _: gpu)
version, backends = N(cuda=CUDA, hip=None), N(mps=N(is_available=lambda: False))
__main__._GPU = __file__
print('a greeting')
"""


def fake(gpus: int, cuda: str | None, why: str) -> str:
    return f"GPUS, CUDA, WHY = {gpus}, {cuda!r}, {why!r}\n{FAKE}"


FINE = fake(1, "13.0", "")


@pytest.mark.parametrize(
    ("torch", "torchvision", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "", "torch .*cannot .* status -11"),
        ("raise OSError('libcudart.so.99: cannot open\\nmore')", "", "torch .*cannot open[.]$"),
        ("import time; time.sleep(60)", "", "torch .*cannot .* did not end within 3"),
        (FINE, "raise RuntimeError('operator nms')", "torchvision .* RuntimeError: operator nms"),
        (FINE, "import os; os._exit(3)", ".*torchvision cannot .* status 3"),
        (fake(1, "13.0", "no kernel image"), "", "GPU 0 does not compute: no kernel image[.]"),
        (fake(0, "13.0", "Too old a driver"), "", ".*CUDA 13.0, cannot use it. Too old a driver"),
        (fake(0, None, ""), "", "There is an NVIDIA GPU, but this torch, for CPUs, cannot use it"),
    ],
    ids=["crashes", "raises", "hangs", "another torchvision", "torchvision ends it",
         "GPU fails", "old driver", "no CUDA"],
)  # fmt: skip
def test_a_torch_that_does_not_work(
    torch: str, torchvision: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(torch)
    (tmp_path / "torchvision.py").write_text(torchvision)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "_PROBE_SECONDS", 3)
    found = list(machine.examine_devices())
    problem, remedy = next(iter(problems(iter(found)).items()))
    assert re.match(told, problem)
    assert "nstall" in remedy
    if torch == FINE:
        assert values(iter(found))["GPU 0"] == "NVIDIA A1, 80.0 GB, 9.0, bf16"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose, which is no fault
        (tmp_path / "torch.py").write_text(fake(0, "13.0", ""))
        assert "NVIDIA" not in " ".join(problems(machine.examine_devices()))


@pytest.mark.parametrize(
    ("text", "told", "wrong"),
    [
        (OURS, "(runs lit_mbldm.cli by", ""),
        (f"#!/bin/sh\n'''exec' {OURS[2:]}", "(runs lit_mbldm.cli by", ""),
        (OURS.replace("lit_mbldm.cli", "sdk.entry"), "(runs sdk.entry", "not lit_mbldm"),
        (f"#!/elsewhere/bin/python3\n{OURS}", "(runs lit_mbldm.cli by", "another environment's"),
        ("#!/usr/bin/env bash\nexec pyenv exec lightning\n", "cannot be examined", ""),
    ],
    ids=["ours", "ours behind a shell", "lightning-sdk", "another environment", "a shim"],
)
def test_who_owns_lightning(
    text: str, told: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "lightning-sdk")
    monkeypatch.syspath_prepend(tmp_path)
    script(tmp_path / "bin" / "lightning", text)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = values(examine_commands())
    assert "lightning-sdk 9.8.7" in found["lightning belongs to"]
    assert "lit-mbldm" in found["lightning belongs to"]
    assert str(tmp_path / "bin" / "lightning") in found["lightning runs"]
    assert told in found["lightning runs"]
    assert "not on the path" in found["lit-mbldm runs"]
    faults = problems(examine_commands())
    assert len(faults) == bool(wrong)
    for problem, remedy in faults.items():
        assert wrong in problem
        assert "-m lit_mbldm`" in remedy


def test_room_on_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, told in ((0.9e9, "Only 0.9 GB are free"), (1.1e9, "")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        found = problems(machine.examine_disk())
        assert bool(found) == bool(told)
        assert told in " ".join(found)


def test_a_part_that_fails_does_not_end_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Iterator[Finding]:
        yield Finding("a", "so far")
        raise RuntimeError("all is broken")

    assert print_report({"Versions": fails, "Disk": lambda: iter([Finding("b", "fine")])}) == 1
    told = capsys.readouterr().out
    assert re.search("a +so far", told)
    assert re.search("b +fine", told)
    assert "1. Versions cannot be examined: RuntimeError: all is broken." in told
