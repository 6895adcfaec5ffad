import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

# pytest's import mode puts no folder there
sys.path.append(str(Path(__file__).parent))

from entries import KINDS, make
from loopback_hub import Hub
from torch import nn

from lit_mbldm.entries.entry import write_files
from lit_mbldm.hub.export import whole_entry


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on the loopback device, to which the client of this process is led.

    The client has an empty cache in `tmp_path / "huggingface"` and a valid token in HF_TOKEN.
    """
    from huggingface_hub.utils import close_session

    hub = Hub()
    hub.point_client(monkeypatch, tmp_path / "huggingface")
    yield hub
    close_session()
    hub.close()
    assert not hub.errors, "\n".join(hub.errors)


@pytest.fixture(scope="session")
def modules() -> dict[str, nn.Module]:
    """A small module of every kind; not to be changed."""
    return {kind: make(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def folders(
    modules: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Their whole entries, which are pushed without drawing pictures again."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in modules}
    for kind, folder in made.items():
        write_files(folder, whole_entry(modules[kind]))
    return made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a client would have waited before it asked again; it does not wait."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from lit_mbldm.entries import hub_errors

    waited: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": waited.append})
    for module in (_http, file_download, hub_errors):
        monkeypatch.setattr(module, "time", clock)
    return waited


def install(command: list[str], seconds: float) -> None:
    """Run an installer; where it fails the test is skipped, or fails where everything must run."""
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    try:
        subprocess.run(command, check=True, timeout=seconds, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        give_up(f"not installed: {error} {said.decode(errors='replace')[-500:]}")


@pytest.fixture(scope="session")
def previous_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the major of huggingface_hub before the installed one, for PYTHONPATH."""
    major = int(importlib.metadata.version("huggingface_hub").split(".")[0])
    folder = tmp_path_factory.mktemp("previous-client")
    wanted = f"huggingface_hub>={major - 1},<{major}"
    quick = "--quiet --no-input --no-compile --disable-pip-version-check --retries=1 --timeout=10"
    command = [sys.executable, "-m", "pip", "install", *quick.split(), f"--target={folder}", wanted]
    install(command, seconds=120)
    return folder
