"""What goes wrong between a client and the Hub, and what is left of it."""

import resource
from pathlib import Path

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
    with pytest.raises(InputError, match=r"Somebody else moved.*push again"):
        push_pretrained(folders["continuous"], REPO)
    assert hub.repository(REPO).at("main").title == "edit"
    push_pretrained(folders["continuous"], REPO)
    assert hub.files(REPO)["notes.txt"] == b"theirs"


@pytest.mark.parametrize(
    ("request_", "status", "after"),
    [
        *((COMMIT, status, after) for status in (500, 429, None) for after in (False, True)),
        *((request_, None, False) for request_ in ("POST .*/preupload/", "/batch", UPLOAD)),
    ],
)
def test_a_push_goes_on_where_one_answer_fails_and_commits_once(
    hub: Hub, modules: Modules, folders: Folders, hasty: list[float], request_: str,
    status: int | None, after: bool,
) -> None:  # fmt: skip
    head = hub.add_repo(REPO)
    if status is None:
        (hub.faults.drop_after if after else hub.faults.drop_before)(request_)
    else:
        hub.faults.status(request_, status, after=after)
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
    with pytest.raises(InputError, match=f"{name} is damaged.*which fetches it anew"):
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


@pytest.mark.parametrize("pulls", [False, True])
def test_a_full_disk_is_named_and_goes_on_once_there_is_room(
    pushed: Hub, modules: Modules, tmp_path: Path, pulls: bool
) -> None:
    def ask() -> nn.Module:
        if pulls:
            return load_pretrained(pull(REPO, out=place / "copy"))
        return load_pretrained(REPO, cache_dir=place)

    place = tmp_path / "small"
    if pulls:
        pull(REPO)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*make room") as error:
            ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(place) in str(error.value)
    assert not (place / "copy" / "config.json").exists()
    assert not list(place.rglob("*.tmp*"))
    assert_same(ask(), modules["refined"])
