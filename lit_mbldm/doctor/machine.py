"""What there is to compute on, whether the Hub can be reached, and the room on the disks."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lit_mbldm.doctor.report import Finding
from lit_mbldm.parallel.launcher import cores
from lit_mbldm.storage.urls import public

_PROBE_SECONDS = 180  # a cold network disk takes more than one minute to import torch
_HUB_SECONDS = 5.0
REINSTALL_TORCH = (
    "Install versions that belong together: `pip install --upgrade --force-reinstall torch"
    " torchvision` (pytorch.org lists the commands for each CUDA version)."
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
    except subprocess.TimeoutExpired as error:
        process.kill()  # and no waiting: a driver that hangs holds the process against that, too
        told, ended = error.output or b"", f"did not end within {_PROBE_SECONDS} seconds"
    for line in told.decode(errors="replace").splitlines():
        if line.startswith('{"name": '):  # libraries print, too
            yield Finding(**json.loads(line))
    if ended:
        problem = f"torch or torchvision cannot be used: the process that tried them {ended}."
        yield Finding("torch", ended, problem, REINSTALL_TORCH)


def examine_hub() -> Iterator[Finding]:
    """Endpoint, offline mode, reachability and login. No part of a token is shown."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import build_hf_headers, get_session

    yield Finding("Endpoint", public(constants.ENDPOINT))
    if constants.HF_HUB_OFFLINE:
        yield Finding("Reachable", "not asked: offline mode (HF_HUB_OFFLINE)")
        return
    token = get_token()
    url = f"{constants.ENDPOINT}/api/{'whoami-v2' if token else 'models?limit=1'}"
    headers = build_hf_headers(token=token or False)
    try:
        answer = get_session().get(url, headers=headers, timeout=_HUB_SECONDS)
        refused = token is not None and answer.status_code == 401
        why = f"it answers {answer.status_code}" if answer.is_error and not refused else ""
    except Exception as error:  # its text may quote the token
        why = type(error).__name__
    if why:
        told = f"no: {why}. Shipped entries, local folders and what the cache holds still load."
        told += " Behind a proxy, set HTTPS_PROXY; without network, HF_HUB_OFFLINE=1."
        yield Finding("Reachable", told)
        return
    yield Finding("Reachable", "yes")
    source = "the variable HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
    if token is None:
        told = "nobody; private models and `lit-mbldm push` need `hf auth login`"
        yield Finding("Login", told)
    elif refused:
        problem = f"The Hub refuses the token from {source}."
        remedy = "Make a new one in the Hub's settings, then `hf auth login`. HF_TOKEN, if set,"
        yield Finding("Login", "refused", problem, f"{remedy} goes before that login: unset it.")
    else:
        yield Finding("Login", f"{answer.json()['name']} (token from {source})")


def examine_disk() -> Iterator[Finding]:
    """The space that is free here, for temporary files and for the Hub's cache."""
    yield _room("Here", Path.cwd())
    yield _room("Temporary files", Path(tempfile.gettempdir()))
    from huggingface_hub import constants

    yield _room("Hub cache", Path(constants.HF_HUB_CACHE))


def _room(name: str, folder: Path) -> Finding:
    place = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    free = shutil.disk_usage(place).free / 1e9
    value = f"{free:.1f} GB free for {folder}"
    if free >= 1:
        return Finding(name, value)
    problem = f"Only {free:.1f} GB are free on the disk of {folder}."
    return Finding(name, value, problem, "Make room for shards, checkpoints and downloads.")
