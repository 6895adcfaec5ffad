"""What there is to compute on, whether the Hub can be reached, and the room on the disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from lit_mbldm.doctor.report import Finding, gigabytes
from lit_mbldm.parallel.cores import cores
from lit_mbldm.storage.urls import public

_PROBE_SECONDS = 180  # a cold network disk takes more than one minute to import torch
_HUB_SECONDS = 5.0
_LEAST_FREE = 1e9  # bytes
REINSTALL_TORCH = (
    "Install torch and torchvision together, in versions that belong together: `pip install"
    " --upgrade --force-reinstall torch torchvision` (pytorch.org lists the commands for each"
    " CUDA version)."
)


def examine_devices() -> Iterator[Finding]:
    """Cores, and what torch finds, in another process: a broken torch may crash or hang."""
    yield Finding("CPU", f"{cores()} cores")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lit_mbldm.doctor.torch_probe"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        told = process.communicate(timeout=_PROBE_SECONDS)[0]
        ended = f"ended with status {process.returncode}" if process.returncode else ""
        if process.returncode < 0:
            ended = f"crashed ({signal.Signals(-process.returncode).name})"
    except subprocess.TimeoutExpired as error:
        process.kill()  # and no waiting: a driver that hangs holds the process against that, too
        told, ended = error.output or b"", f"did not end within {_PROBE_SECONDS} seconds"
    trying = "torch"
    for line in told.decode(errors="replace").splitlines():
        if line.startswith('{"trying": '):  # libraries print, too
            trying = json.loads(line)["trying"]
        elif line.startswith('{"name": '):
            yield Finding(**json.loads(line))
    if ended:
        problem = f"{trying} cannot be used: the process that tried it {ended}."
        yield Finding(trying, ended, problem, REINSTALL_TORCH)


def examine_hub() -> Iterator[Finding]:
    """Endpoint, offline mode, reachability and login. No part of a token is shown."""
    from huggingface_hub import constants

    yield Finding("Endpoint", public(constants.ENDPOINT))
    if constants.HF_HUB_OFFLINE:
        yield Finding("Reachable", "not asked: offline mode (HF_HUB_OFFLINE)")
        return
    found: list[Finding] = []
    # in a thread: neither a name server nor a server that dawdles heeds a timeout
    thread = threading.Thread(target=lambda: found.extend(_ask_hub()), daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    yield from list(found) or [_unreachable(f"no answer within {_HUB_SECONDS:g} seconds")]


def _ask_hub() -> list[Finding]:
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    reached = Finding("Reachable", "yes")
    variable = bool(os.environ.get("HF_TOKEN"))
    source = "the variable HF_TOKEN" if variable else f"the file {constants.HF_TOKEN_PATH}"
    refused = Finding(
        "Login",
        f"token from {source} is of no use",
        f"The token from {source} is of no use: the Hub refuses it, or it cannot be sent.",
        "Make a new one in the Hub's settings, then `hf auth login`"
        + (", and unset HF_TOKEN, which goes before that login." if variable else "."),
    )
    try:
        if (token := get_token()) is None:
            url = f"{constants.ENDPOINT}/api/models"
            hf_raise_for_status(get_session().get(url, params={"limit": 1}))
            told = "nobody; private models and `lit-mbldm push` need `hf auth login`"
            return [reached, Finding("Login", told)]
        token.encode("ascii")
        user = HfApi().whoami(token=token)
        reads = user.get("auth", {}).get("accessToken", {}).get("role") == "read"
        told = f"{user['name']} (token from {source}{', which may only read' if reads else ''})"
        return [reached, Finding("Login", told)]
    except UnicodeError:
        return [refused]
    except HfHubHTTPError as error:
        status = error.response.status_code
        return [reached, refused] if status == 401 else [_unreachable(f"it answers {status}")]
    except Exception as error:  # its text may quote the token
        return [_unreachable(type(error).__name__)]


def _unreachable(why: str) -> Finding:
    told = (
        f"no: {why}. Shipped entries, local folders and what the cache holds still load. Behind a"
        " proxy, set HTTPS_PROXY; to load from the cache without waiting, HF_HUB_OFFLINE=1."
    )
    return Finding("Reachable", told)


def examine_disk() -> Iterator[Finding]:
    """Size of the caches, and the space that is free for them and here."""
    yield _room("Here", Path.cwd())
    yield _room("Temporary files", Path(tempfile.gettempdir()), "TMPDIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield _room("Reference features", cache / "lit_mbldm" / "reference", "XDG_CACHE_HOME")
    from huggingface_hub import constants

    yield _room("Hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME")


def _room(name: str, folder: Path, setting: str = "") -> Finding:
    """The room on a folder's disk; where a setting can move it, also whether it can be written."""
    place = next(part for part in (folder, *folder.absolute().parents) if os.path.exists(part))
    free = shutil.disk_usage(place).free
    value = f"{gigabytes(free)} free for {folder}"
    if setting.endswith("HOME"):  # of a cache
        size = sum(path.lstat().st_size for path in folder.rglob("*"))
        value += f", which takes {gigabytes(size)}"
    if setting and not os.access(place, os.W_OK):
        problem = f"{name}: {folder} cannot be written."
        return Finding(name, value, problem, f"Set {setting} to a folder that can be.")
    if free < _LEAST_FREE:
        problem = f"Only {gigabytes(free)} are free on the disk of {folder}."
        return Finding(name, value, problem, "Make room for shards, checkpoints and downloads.")
    return Finding(name, value)
