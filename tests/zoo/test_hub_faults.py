"""What goes wrong between a client and the Hub, and what is left of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from entries import FILES, REPO, assert_same, loads
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import close_session
from loopback_http import Exchange, Response
from loopback_hub import Hub
from torch import nn

from lit_mbldm.entries.fetch import pull
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained, push_pretrained

Modules = dict[str, nn.Module]
Folders = dict[str, Path]
COMMIT = "POST .*/commit/"
UPLOAD = "PUT .*/objects/"
LOAD = "import sys; from lit_mbldm.zoo import load_pretrained; load_pretrained(sys.argv[1])"


@pytest.fixture
def pushed(hub: Hub, folders: Folders) -> Hub:
    """A Hub that holds the model with the refiner, and has been asked nothing since."""
    push_pretrained(folders["refined"], REPO)
    hub.requests.clear()
    return hub


# pushing


def assert_pushed_once(hub: Hub, before: str) -> None:
    commit = hub.repository(REPO).at("main")
    assert commit.parent == before
    assert set(commit.files) == FILES | {".gitattributes"}


def test_a_branch_that_moves_meanwhile_is_left_as_it_is(hub: Hub, folders: Folders) -> None:
    push_pretrained(folders["categorical"], REPO)
    theirs = {"README.md": b"theirs", "notes.txt": b"theirs"}
    hub.faults.hook(COMMIT, lambda: hub.commit(REPO, theirs))
    hub.requests.clear()
    with pytest.raises(InputError, match=r"Somebody else moved.*push again") as error:
        push_pretrained(folders["continuous"], REPO)
    now = hub.repository(REPO).at("main")
    assert now.title == "edit"
    assert now.oid in str(error.value)
    assert str(now.parent) in str(error.value)
    assert len(hub.asked(COMMIT)) == 1
    push_pretrained(folders["continuous"], REPO)
    assert hub.repository(REPO).at("main").parent == now.oid
    assert hub.files(REPO)["notes.txt"] == b"theirs"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("status", [500, 429, None, "always"])
def test_a_commit_whose_answer_is_lost_is_made_once(
    hub: Hub, modules: Modules, folders: Folders, hasty: list[float], status: Any, after: bool
) -> None:
    head = hub.add_repo(REPO)
    if status == "always":
        hub.faults.drop_after(COMMIT, times=None)
    elif status is None:
        (hub.faults.drop_after if after else hub.faults.drop_before)(COMMIT)
    else:
        hub.faults.status(COMMIT, status, after=after)
    push = push_pretrained(folders["codec"], REPO)
    assert push.commit == hub.head(REPO)
    assert_pushed_once(hub, head)
    loads(REPO, modules["codec"])


@pytest.mark.parametrize(
    "request_",
    [
        f"GET .*/api/models/{REPO}",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        UPLOAD,
        "POST .*/objects/verify",
        COMMIT,
        "POST .*/validate-yaml",
    ],
)
def test_a_push_to_a_hub_that_keeps_failing_leaves_the_branch(
    hub: Hub, folders: Folders, hasty: list[float], request_: str
) -> None:
    head = hub.add_repo(REPO)
    fault = hub.faults.status(request_, 503, times=None)
    with pytest.raises(OSError, match=r"answers 503 .* for org/model\. Try again later"):
        push_pretrained(folders["codec"], REPO)
    assert hub.head(REPO) == head
    assert sum(hasty) < 90
    fault.times = 0
    push_pretrained(folders["codec"], REPO)
    assert_pushed_once(hub, head)


@pytest.mark.parametrize("request_", ["POST .*/preupload/", UPLOAD, "POST .*/objects/batch"])
def test_an_upload_that_fails_once_is_tried_again(
    hub: Hub, folders: Folders, hasty: list[float], request_: str
) -> None:
    head = hub.add_repo(REPO)
    hub.faults.drop_before(request_)
    push_pretrained(folders["codec"], REPO)
    assert_pushed_once(hub, head)


def test_a_push_while_offline_says_why_not(
    hub: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        push_pretrained(folders["codec"], REPO)
    assert not hub.requests


# pulling


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("config.json", "GET .*/resolve/.*/config.json"),
        ("model.safetensors", "GET .*/objects/"),
        ("refiner/config.json", "GET .*/resolve/.*/refiner(%2F|/)config.json"),
    ],
)
def test_wrong_bytes_of_the_right_size_are_named_and_do_not_stay(
    pushed: Hub, modules: Modules, name: str, request_: str
) -> None:
    pushed.faults.corrupt(request_)
    with pytest.raises(InputError, match=f"{name} is damaged.*he same again fetches it anew"):
        load_pretrained(REPO)
    loads(REPO, modules["refined"])


REQUESTS = pytest.mark.parametrize(
    "request_", ["HEAD .*/resolve/", "GET .*/config.json", "GET .*/objects/"]
)


@REQUESTS
@pytest.mark.parametrize("status", [500, 429, None])
def test_a_hub_that_fails_once_is_asked_again(
    pushed: Hub, modules: Modules, hasty: list[float], request_: str, status: int | None
) -> None:
    if status is not None:
        pushed.faults.status(request_, status)
    elif "GET" in request_:  # a body that breaks off
        pushed.faults.truncate(request_, times=2)
    loads(REPO, modules["refined"])


@REQUESTS
@pytest.mark.parametrize("status", [503, None])
def test_a_hub_that_keeps_failing_is_told(
    pushed: Hub, modules: Modules, hasty: list[float], request_: str, status: int | None
) -> None:
    if status is None:
        fault, told = pushed.faults.drop_before(request_, times=None), "cannot be reached"
    else:
        fault = pushed.faults.status(request_, status, times=None)
        told = r"answers 503 .* for org/model\. Try again later"
    with pytest.raises(OSError, match=told):
        load_pretrained(REPO)
    assert sum(hasty) < 90
    fault.times = 0
    loads(REPO, modules["refined"])


def test_a_redirect_to_a_stranger_takes_no_token_along(hub: Hub, folders: Folders) -> None:
    push_pretrained(folders["refined"], REPO, private=True)
    hub.requests.clear()
    hub.faults.redirect("(HEAD|GET) .*/(resolve|objects)/", times=None)
    loads(REPO, load_pretrained(folders["refined"]))
    asked = hub.asked(f"GET {hub.elsewhere_url}")
    assert asked
    assert not [
        one for one in hub.requests if one not in hub.asked(hub.url) and hub.token in str(one)
    ]


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize("status", [200, 404])
def test_an_endpoint_that_names_paths_is_refused_before_anything_is_written(
    pushed: Hub, folders: Folders, tmp_path: Path, header: str, status: int
) -> None:
    def hostile(exchange: Exchange) -> Response:
        answer = exchange.respond()
        if status != 200:
            answer = Response.of_json({}, status, X_Error_Code="EntryNotFound")
        answer.headers[header] = '"../../../evil"' if "tag" in header.lower() else "../../../evil"
        return answer

    pushed.faults.add("HEAD .*/config.json", hostile, times=None)
    for use in (load_pretrained, pull, lambda name: push_pretrained(folders["refined"], name)):
        with pytest.raises(InputError, match=f"{header} .*evil.* outside the Hub's cache"):
            use(REPO)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_user_s_own_client_is_used(pushed: Hub, modules: Modules) -> None:
    from huggingface_hub.utils import _http

    made = []
    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(lambda: made.append(1) or _http.default_client_factory())
    try:
        loads(REPO, modules["refined"])
        assert len(made) == 1
    finally:
        set_client_factory(before)


# a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot take the weights."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small file system is not permitted: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("pulls", [False, True])
def test_a_full_disk_is_named_and_goes_on_once_there_is_room(
    pushed: Hub, modules: Modules, small_disk: Path, pulls: bool
) -> None:
    def ask() -> nn.Module:
        if pulls:
            return load_pretrained(pull(REPO, out=small_disk / "copy"))
        return load_pretrained(REPO, cache_dir=small_disk)

    with pytest.raises(OSError, match=r"No space left.*make room") as error:
        ask()
    assert str(small_disk) in str(error.value)
    assert not (small_disk / "copy" / "config.json").exists()
    assert not list(small_disk.rglob("*.tmp*"))
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert_same(ask(), modules["refined"])


# a killed process


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_broken(
    hub: Hub, tmp_path: Path
) -> None:
    push_pretrained("opq-32-8-8", REPO)
    fault = hub.faults.slow("GET .*/objects/", seconds=20.0, times=None)
    hub.requests.clear()
    environment = hub.environment(tmp_path / "huggingface")
    child = subprocess.Popen([sys.executable, "-c", LOAD, REPO], env=environment)
    end = time.monotonic() + 60
    while not hub.asked("GET .*/objects/") and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)  # so that it has a part
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "huggingface").rglob("*.incomplete"))
    fault.times = 0
    assert_same(load_pretrained(REPO), load_pretrained("opq-32-8-8"))
