import fcntl
import http.server
import importlib.metadata
import importlib.resources
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from lit_mbldm.doctor import run_doctor
from lit_mbldm.doctor import torch_findings as torch_findings_module
from lit_mbldm.doctor.devices import examine_devices
from lit_mbldm.doctor.disk import examine_disk
from lit_mbldm.doctor.hub import _LIMIT, examine_hub
from lit_mbldm.doctor.missing import merged, named_in, not_installed
from lit_mbldm.doctor.scripts import examine_scripts
from lit_mbldm.doctor.section import Problem, Section, verdict
from lit_mbldm.doctor.torch_findings import TorchFindings, find
from lit_mbldm.doctor.versions import examine_versions

GOOD, BAD = "hf_goodTokenOfAnna", "hf_badTokenOfNobody"
NOTHING = TorchFindings({}, "")
Usage = namedtuple("Usage", "total used free")


def distribution(
    folder: Path, name: str, version: str, requires: str = "", script: str = "",
    python: str = ">=3.11", extras: tuple[str, ...] = ("eval",),
) -> None:  # fmt: skip
    """Put a distribution's metadata in a folder of the path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}", *(f"Provides-Extra: {extra}" for extra in extras)]
    lines += [f"Requires-Dist: {text}" for text in requires.split("|") if text]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    if script:
        (info / "entry_points.txt").write_text(f"[console_scripts]\nlightning = {script}\n")


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name


def one_line(text: str) -> str:
    return " ".join(text.split())


def whats(section: Section) -> str:
    return " | ".join(problem.what for problem in section.problems)


class Hub(http.server.BaseHTTPRequestHandler):
    """What the doctor asks of a Hub."""

    def do_GET(self) -> None:
        server: Any = self.server
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        server.asked.append((self.path.partition("?")[0], token))
        status, body = server.answer
        if self.path == "/api/whoami-v2" and status == 200:
            user = {"name": "anna", "auth": {"accessToken": {"role": server.role}}}
            status, body = (200, json.dumps(user)) if token == GOOD else (401, '{"error": "no"}')
        if self.path.startswith("/api/agent"):  # the client's own question, without a token
            status, body = 404, "{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.answer, server.role = [], (200, "[]"), "write"
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No login, no cache, no proxy of whoever runs the tests."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def child(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose Hub client knows neither login nor cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_"))}
    cache = {"HF_HOME": str(folder / "hf"), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120,
        env={**kept, **cache, "NO_PROXY": "127.0.0.1", **variables},
    )  # fmt: skip


def test_a_sound_installation(server: Any, tmp_path: Path) -> None:
    ours = f"#!{sys.executable}\nimport sys\nfrom lit_mbldm.cli import main\nsys.exit(main())\n"
    for name in ("lightning", "lit-mbldm"):
        script(tmp_path / "bin", name, ours)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    code = "import sys, lit_mbldm.doctor as d; sys.exit(d.run_doctor())"
    ran = child(code, tmp_path, HF_ENDPOINT=server.url, HF_TOKEN=GOOD, PATH=path)
    wrong, headings = [], []
    for line in ran.stdout.splitlines():
        headings += [line] if line[:1].isalpha() else []
        wrong += [headings[-1]] if line.startswith("! ") else []
    assert headings[:-1] == ["Versions", "Devices", "Commands", "Hub", "Disk"]
    # the machine's driver and disk are not the installation's
    assert set(wrong) <= {"Devices", "Disk"}, ran.stdout + ran.stderr
    assert headings[-1] == ("What is wrong" if wrong else "Nothing is wrong.")
    assert ran.returncode == bool(wrong)
    for name in ("torch", "lightning", "torchvision"):
        assert f"  {name:<20} {importlib.metadata.version(name)}" in ran.stdout
    assert f"{tmp_path / 'bin' / 'lightning'} (runs lit_mbldm.cli)" in one_line(ran.stdout)
    assert "anna (token from the variable HF_TOKEN)" in ran.stdout
    assert str(tmp_path / "cache" / "lit_mbldm" / "reference") in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 100 + len(str(tmp_path)) + len(sys.executable)
    assert [path for path, token in server.asked if token == GOOD] == ["/api/whoami-v2"]
    assert GOOD[3:] not in ran.stdout + ran.stderr


BARE = "torch>=2|numpy|huggingface_hub>=1|faiss-cpu|pyyaml|packaging"


@pytest.mark.parametrize("packaging", [True, False])
def test_an_environment_without_packages(packaging: bool, tmp_path: Path) -> None:
    distribution(tmp_path / "path", "lit-mbldm", "9.8.7", BARE, "lit_mbldm.cli:main")
    venv.create(tmp_path / "venv", symlinks=True)
    packages = [Path(str(importlib.resources.files("lit_mbldm")))]
    if packaging:
        files = importlib.metadata.distribution("packaging").files or []
        places = {file.locate().resolve().parent for file in files}  # type: ignore[attr-defined]
        packages += [place for place in places if place.name.startswith("packaging")]
    for package in packages:
        (tmp_path / "path" / package.name).symlink_to(package)
    ran = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-m", "lit_mbldm", "doctor"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "path")},
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    report, _, verdict = ran.stdout.partition("What is wrong")
    assert "  lit-mbldm            9.8.7" in report
    assert "  lightning belongs to lit-mbldm 9.8.7\n" in report
    assert "! Hub cache            unknown" in report
    assert "  Free " in report or "! Free " in report
    first = one_line(verdict.partition(" 2. ")[0])
    missing = "torch, numpy, huggingface-hub, faiss-cpu, pyyaml"
    if not packaging:
        assert "Without packaging, no versions can be compared" in one_line(report)
        missing = "packaging, torch, huggingface-hub"
    assert f"needs are not installed: {missing}. Remedy: Install lit-mbldm with all" in first
    assert "`pip install lit-mbldm`" in first
    for name in ("torch", "huggingface", "faiss"):
        assert verdict.count(name) == (name in missing)


def test_each_missing_package_is_told_once() -> None:
    here = not_installed("faiss-cpu", specifier=">=1.9")
    other = Problem("The disk is full.", "Make room.")
    problems = [other, here, named_in("ModuleNotFoundError: No module named 'faiss'")]
    assert merged([problem for problem in problems if problem]) == [here, other]
    assert named_in("No module named 'lit_mbldm'") is None
    assert named_in("libcudart.so.99: cannot open") is None
    assert named_in("No module named 'huggingface_hub.errors'") is None  # it is there, but old


@pytest.mark.parametrize(("python", "wrong"), [(">=3.11", False), (">=3.99", True), ("<3", True)])
def test_python_versions(
    python: str, wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "lit-mbldm", "9.8.7", python=python)
    monkeypatch.syspath_prepend(tmp_path)
    section = examine_versions()
    assert section.rows[0][::2] == ("Python", wrong)
    assert (f"too old or new: lit-mbldm needs {python}." in whats(section)) == wrong
    assert len(section.problems) == wrong


def test_extras_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires = "absent; extra=='test'|absent; extra=='eval'|numpy; extra=='more'"
    distribution(tmp_path, "lit-mbldm", "9.8.7", requires, extras=("test", "eval", "more"))
    monkeypatch.syspath_prepend(tmp_path)
    told = {name: value for name, value, _ in examine_versions().rows if "[" in name}
    assert list(told) == ["lit-mbldm[eval]", "lit-mbldm[more]"]
    assert told["lit-mbldm[more]"] == "installed"


def test_requirements_that_are_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires = (
        "torch>=999|numpy>=1|no-such-thing>=2; python_version>'3'|absent; python_version<'3'"
        "|old-part[more]>=1|no-weights==3; extra == 'eval'"
    )
    distribution(tmp_path, "lit-mbldm", "9.8.7", requires)
    distribution(tmp_path, "old-part", "1.5", "numpy==0.1|elsewhere>=1|left-out; extra == 'less'"
                 "|pillow>=999; extra == 'more'|not-there; extra == 'more'")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    section = examine_versions()
    rows = {name: (value, wrong) for name, value, wrong in section.rows}
    wrong = [name for name, (_, wrong) in rows.items() if wrong]
    assert wrong == ["torch", "numpy", "no-such-thing", "pillow", "not-there"]
    assert rows["lit-mbldm"] == ("9.8.7", False)
    assert rows["old-part"][0].split() == ["1.5", "needs", ">=1"]
    assert "pip install 'lit-mbldm[eval]'" in rows["lit-mbldm[eval]"][0]
    remedies = {problem.what: problem.remedy for problem in section.problems}
    torch, numpy = (importlib.metadata.version(name) for name in ("torch", "numpy"))
    too_old = f"torch {torch} is installed, but lit-mbldm needs >=999."
    assert remedies[too_old] == "`pip install 'torch>=999'`."
    assert (
        "--upgrade numpy old-part"
        in remedies[f"numpy {numpy} is installed, but old-part needs ==0.1."]
    )
    missing = "no-such-thing is not installed, and lit-mbldm needs it."
    assert remedies[missing] == "`pip install 'no-such-thing>=2'`"
    assert "not-there is not installed, and old-part needs it." in remedies


@pytest.mark.parametrize(
    ("torch", "ended"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"),
        ("raise OSError('libcudart.so.99: cannot open\\nmore')", "libcudart.so.99: cannot open."),
    ],
    ids=["crashes", "raises"],
)
def test_a_torch_that_does_not_load(
    torch: str, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(torch)
    monkeypatch.syspath_prepend(tmp_path)
    section = examine_devices(find())
    assert ended in whats(section)
    assert "torch does not load" in whats(section)
    assert "pip install" in section.problems[0].remedy
    assert {name for name, _, _ in section.rows} == {"CPU", "Memory", "torch"}


def test_a_torch_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holds = (
        "import fcntl, pathlib, time\nstream = open(pathlib.Path(__file__).parent / 'lock', 'w')"
    )
    holds += "\nfcntl.flock(stream, fcntl.LOCK_EX)\nstream.write('held')\nstream.flush()"
    (tmp_path / "torch.py").write_text(f"{holds}\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch_findings_module, "_LIMIT", 3)
    section = examine_devices(find())
    assert "torch does not load: it did not end within 3 seconds." in whats(section)
    with (tmp_path / "lock").open() as stream:
        assert stream.read() == "held"
        deadline = time.monotonic() + 20
        while True:  # the lock is free as soon as the process is gone
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_a_torchvision_of_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\nprint('a greeting')\n"
        "cuda = N(is_available=lambda: False, device_count=lambda: 0)\n"
        "version = N(cuda='13.0', hip=None)\nbackends = N(mps=N(is_available=lambda: False))\n"
    )
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    section = examine_devices(find())
    (wrong,) = [name for name, _, wrong in section.rows if wrong]
    assert wrong == "torchvision"
    assert "RuntimeError: operator torchvision::nms does not exist" in whats(section)


def gpu(**more: Any) -> dict[str, Any]:
    facts = {"name": "NVIDIA A1", "memory": 80e9, "capability": "9.0", "bf16": True, "free": 79e9}
    return {**facts, **more}


def cuda(
    built: str | None,
    driver: tuple[int, int, int] | None,
    gpus: list[dict[str, Any]],
    why: str = "",
) -> TorchFindings:
    told = driver and dict(zip(("version", "count", "status"), driver, strict=True))
    torch = {"cuda": built, "hip": None, "available": bool(gpus), "why_not": why}
    values = {"torch": torch, "driver": told, "gpus": gpus, "mps": False, "torchvision": None}
    return TorchFindings({name: {"value": value} for name, value in values.items()}, "")


@pytest.mark.parametrize(
    ("findings", "note", "wrong"),
    [
        (cuda("13.0", (13000, 1, 0), [gpu()]), "", ""),
        (cuda("13.2", (13000, 1, 0), [gpu()]), "", ""),
        (cuda("13.0", None, []), "no driver of one", ""),
        (cuda(None, None, []), "", ""),
        (cuda(None, (12040, 1, 0), []), "", "built without CUDA"),
        (cuda("13.0", (12040, 1, 0), [], "too old"), "", "up to 12.4, and this torch is built"),
        (cuda("13.0", (13000, 0, 100), []), "no GPU is to be seen (CUDA_VISIBLE_DEVICES='')", ""),
        (cuda("13.0", (13000, 0, 999), [], "unknown error"), "", "cannot be used: unknown error"),
        (cuda("13.0", (13000, 0, 803), []), "", "cuInit gives 803"),
        (cuda("13.0", (13000, 1, 0), [gpu(error="no kernel image")]), "", "no kernel image"),
        (TorchFindings({**cuda("13.0", None, []).found, "driver": {}}, "SIGSEGV"), "", "SIGSEGV"),
    ],
)  # fmt: skip
def test_gpus_drivers_and_builds(
    findings: TorchFindings, note: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    section = examine_devices(findings)
    assert len(section.notes) == bool(note)
    assert note in " ".join(section.notes)
    assert len(section.problems) == bool(wrong)
    assert wrong in whats(section)
    if findings.value("gpus"):
        told = {name: value for name, value, _ in section.rows}["GPU 0"]
        assert told == "NVIDIA A1, 80.0 GB (79.0 GB free), compute capability 9.0, bf16"


PYTHON = Path(sys.executable)
SDK = f"#!{sys.executable}\nimport sys\nfrom fake_sdk.entry import run\nsys.exit(run())\n"
OURS = "import sys\nfrom lit_mbldm.cli import main\nsys.exit(main())\n"
SHELL = f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n{OURS}"


@pytest.mark.parametrize(
    ("text", "told", "wrong"),
    [
        (f"#!{sys.executable}\n{OURS}", "(runs lit_mbldm.cli)", ""),
        (SHELL, "(runs lit_mbldm.cli)", ""),
        (SDK, "(runs fake_sdk.entry)", "runs fake_sdk.entry, so `lightning fit` does not train"),
        (f"#!/elsewhere/bin/python3\n{OURS}", "of another environment", "/elsewhere/bin"),
        (f"#!/usr/bin/env {PYTHON.name}\n{OURS}", "(runs lit_mbldm.cli)", ""),
        (f"#!/usr/bin/env -S A=b {PYTHON.name} -P\n{OURS}", "(runs lit_mbldm.cli)", ""),
        (f"#!/usr/bin/env python2.0\n{OURS}", "python2.0 that is not", "asks for `python2.0`,"),
        (f"#!{PYTHON}\nprint(1)\n", "(runs something else)", "runs something else"),
        (f"#!/bin/sh\nexec {PYTHON} -m lit_mbldm\n", "a wrapper that cannot be examined", ""),
        ("#!/usr/bin/env bash\nexec pyenv exec lightning\n", "a wrapper that cannot be", ""),
    ],
    ids=["ours", "ours behind a shell", "lightning-sdk", "another environment", "env", "env -S",
         "env without Python", "Python", "wrapper", "shim"],
)  # fmt: skip
def test_who_owns_lightning(
    text: str, told: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "lightning-sdk", "2026.1", script="fake_sdk.entry:run")
    monkeypatch.syspath_prepend(tmp_path)
    script(tmp_path / "bin", "lit-mbldm", f"#!{sys.executable}\n{OURS}")
    path = script(tmp_path / "bin", "lightning", text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{PYTHON.parent}")
    section = examine_scripts()
    rows = {name: value for name, value, _ in section.rows}
    assert "lightning-sdk 2026.1" in rows["lightning belongs to"]
    assert "lit-mbldm" in rows["lightning belongs to"]
    assert str(path) in rows["lightning runs"]
    assert told in rows["lightning runs"]
    assert len(section.problems) == bool(wrong)
    assert wrong in whats(section)
    if text == SDK:
        remedy = section.problems[0].remedy
        assert "Run `lit-mbldm` or `python -m lit_mbldm` instead" in remedy
        assert "`pip install --force-reinstall --no-deps lit-mbldm`" in remedy
    assert any("passed on" in note for note in section.notes)
    assert any("is a wrapper" in note for note in section.notes) == ("wrapper" in told)


@pytest.mark.parametrize("text", ["", SDK, f"#!/elsewhere/bin/python\n{OURS}"])
def test_no_advice_to_run_a_command_that_is_not_ours(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text:
        script(tmp_path, "lit-mbldm", text)
    script(tmp_path, "lightning", SDK)
    monkeypatch.setenv("PATH", str(tmp_path))
    remedy = examine_scripts().problems[0].remedy
    assert remedy.startswith("Run `python -m lit_mbldm` instead")


def test_commands_that_are_not_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    section = examine_scripts()
    assert not section.problems
    assert str(Path(sys.executable).parent) in section.notes[0]


@pytest.mark.usefixtures("_alone")
def test_offline_mode_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "token").write_text(GOOD)
    section = examine_hub()
    assert not section.problems
    assert "offline mode" in section.text()
    assert f"token from the file {tmp_path / 'token'}" in one_line(section.text())
    assert GOOD[3:] not in section.text()


def test_a_token_that_the_hub_refuses(server: Any, tmp_path: Path) -> None:
    code = (
        "import sys, lit_mbldm.doctor.run as run, lit_mbldm.doctor.torch_findings as t\n"
        "torch = {'cuda': None, 'hip': None, 'available': False, 'why_not': ''}\n"
        "run.find = lambda: t.TorchFindings({'torch': {'value': torch}}, '')\n"
        "sys.exit(run.run_doctor())"
    )
    ran = child(code, tmp_path, HF_ENDPOINT=server.url, HF_TOKEN=BAD)
    assert ran.returncode == 1
    wrong = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("! ")]
    assert "Login" in wrong
    assert [path for path, token in server.asked if token == BAD] == ["/api/whoami-v2"]
    told = one_line(ran.stdout.partition("What is wrong")[2])
    assert "The token from the variable HF_TOKEN is of no use: the Hub refuses it" in told
    assert "`hf auth login`, and unset HF_TOKEN" in told
    assert not any(part in ran.stdout + ran.stderr for part in (BAD[:8], BAD[-8:]))


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize(
    ("token", "setting", "told", "wrong"),
    [
        (b"", {}, "nobody", ""),
        (GOOD.encode(), {}, "anna (token from the file", ""),
        (GOOD.encode(), {"role": "read"}, "may only read", ""),
        (GOOD.encode(), {"answer": (503, "")}, "status 503", ""),
        (b"", {"answer": (200, "<html>")}, "no Hub", ""),
        (GOOD.encode(), {"answer": (418, "")}, "unknown; token from the file", ""),
        (BAD.encode(), {}, "of no use", "invalid or expired"),
        (b"hf_secret\x01\xc3\xa9", {}, "of no use", "characters that no token has"),
        (b"hf_secret\xff\xfe", {}, "of no use", "cannot be had (UnicodeDecodeError)"),
    ],
    ids=["none", "good", "reads", "down", "no Hub", "teapot", "refused", "odd", "no text"],
)
def test_logins(
    token: bytes, setting: dict[str, Any], told: str, wrong: str,
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    vars(server).update(setting)
    if token:
        (tmp_path / "token").write_bytes(token)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    section = examine_hub()
    assert told in one_line(section.text())
    assert len(section.problems) == bool(wrong)
    assert wrong in whats(section)
    shown = section.text() + verdict(section.problems) + "".join(capfd.readouterr())
    for part in ("goodToken", "badToken", "secret"):
        assert part not in shown


@pytest.mark.usefixtures("_alone")
def test_an_endpoint_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("http://anna:pw123@127.0.0.1:1", "anna:pw123@127.0.0.1:1"):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        section = examine_hub()
        assert "pw123" not in section.text() + verdict(section.problems)
        assert bool(section.problems) == (not endpoint.startswith("http"))
        assert "Connection refused" in section.text() or section.problems


def test_a_hub_that_never_answers_does_not_hold_the_report_up(tmp_path: Path) -> None:
    assert _LIMIT <= 5
    code = "import lit_mbldm.doctor.hub as h; h._LIMIT = 0.5; print(h.examine_hub().text())"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.perf_counter()
        ran = child(code, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        seconds = time.perf_counter() - started
    assert "no answer within" in ran.stdout
    assert "Shipped entries" in ran.stdout
    assert ran.stderr == ""
    assert seconds < 30  # of these, most to import the client


def cached(cache: Path, repo: str, size: int) -> Path:
    """A repository in the layout of the Hub's cache; returns its blob."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob, snapshot = folder / "blobs" / "b1", folder / "snapshots" / "c1"
    for part in (blob.parent, snapshot, folder / "refs"):
        part.mkdir(parents=True)
    blob.write_bytes(bytes(size))
    (snapshot / "model.safetensors").symlink_to(blob)
    (folder / "refs" / "main").write_text("c1")
    return blob


def caches(**places: Path) -> TorchFindings:
    names = {"reference": "Reference features", "weights": "FID weights"}
    return TorchFindings(
        {"caches": {"value": {names[name]: str(place) for name, place in places.items()}}}, ""
    )


@pytest.mark.usefixtures("_alone")
def test_sizes_of_caches(tmp_path: Path) -> None:
    cached(tmp_path / "hub", "org/a", 3_000_000)
    cached(tmp_path / "hub", "org/b", 2_000_000)
    (tmp_path / "hub" / "version.txt").write_text("1")
    (tmp_path / "xet").mkdir()
    (tmp_path / "xet" / "chunk").write_bytes(bytes(4_000_000))
    (tmp_path / "reference" / "deep").mkdir(parents=True)
    (tmp_path / "reference" / "deep" / "x.safetensors").write_bytes(bytes(1_500_000))
    section = examine_disk(caches(reference=tmp_path / "reference", weights=tmp_path / "none"))
    rows = {name: value for name, value, _ in section.rows}
    assert rows["Hub cache"].split() == ["5.0", "MB", str(tmp_path / "hub"), "(2", "repositories)"]
    assert rows["Xet cache"].split() == ["4.0", "MB", str(tmp_path / "xet")]
    assert rows["Reference features"].startswith("1.5 MB")
    assert rows["FID weights"].startswith("empty")
    assert not (tmp_path / "none").exists()
    assert "damaged" not in whats(section)


@pytest.mark.usefixtures("_alone")
def test_a_damaged_cache(tmp_path: Path) -> None:
    cached(tmp_path / "hub", "org/a", 3_000_000).unlink()
    section = examine_disk(NOTHING)
    assert "damaged repository" in whats(section)
    assert "models--org--a" in whats(section)
    assert "downloaded again" in section.problems[0].remedy


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize(("free", "wrong"), [(0.99e9, True), (1.01e9, False)])
def test_low_disk(free: float, wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free)))
    section = examine_disk(NOTHING)
    assert ("Only 990.0 MB are free" in whats(section)) == wrong
    assert bool(section.problems) == wrong


@pytest.mark.usefixtures("_alone")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that even root cannot write")
def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/proc/self/hub")
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    section = examine_disk(caches(reference=Path("/proc/reference")))
    settings = [problem.remedy.split()[1] for problem in section.problems[:3]]
    assert settings == ["HF_HOME", "XDG_CACHE_HOME", "TMPDIR"]
    assert whats(section).count("cannot be written") == 3


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("whole", [False, True])
def test_free_space_without_the_hubs_client(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "huggingface_hub" if whole else "huggingface_hub.errors"
    monkeypatch.setitem(sys.modules, broken, None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(5e10)))
    section = examine_disk(NOTHING)
    assert [name for name, _, wrong in section.rows if wrong] == ["Hub cache"]
    assert "50.0 GB" in section.text()


def fails() -> Section:
    raise RuntimeError("all is broken — quite")


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("broken", [None, fails])
def test_a_part_that_fails_does_not_end_the_report(
    broken: Callable[[], Section] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sys.modules["lit_mbldm.doctor.run"]
    for name in ("versions", "scripts", "hub"):
        monkeypatch.setattr(run, f"examine_{name}", lambda: Section([("a", "é — so far", False)]))
    monkeypatch.setattr(run, "examine_disk", lambda _: Section())
    if broken:
        monkeypatch.setattr(run, "examine_versions", broken)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    before = b""

    def probe() -> TorchFindings:
        nonlocal before
        before = stdout.buffer.getvalue()
        return cuda("13.0", None, [])

    monkeypatch.setattr(run, "find", probe)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run_doctor() == (1 if broken else 0)
    told = stdout.buffer.getvalue().decode()
    assert before.endswith(b"\nDevices\n")  # the probe may take long
    assert "\nDisk\n" in told
    assert ("Versions cannot be examined: RuntimeError: all is broken" in told) == bool(broken)
    assert told.endswith("Nothing is wrong.\n") != bool(broken)
