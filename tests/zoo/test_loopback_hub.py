import hashlib
import http.client
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import Hub

REPO = "org/model"
WEIGHTS = bytes(range(256)) * 400
CARD = b"---\nlicense: apache-2.0\nlibrary_name: lib\ntags: [a, b]\ndatasets: [c]\n---\n# Model\n"
CONTENT = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": CARD,
    "s.png": b"\x89\0",
}


def push(content: dict[str, bytes], parent_commit: str | None = None) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in content.items()]
    done = HfApi().create_commit(
        REPO, operations, commit_message="push", parent_commit=parent_commit
    )
    return done.oid


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_what_the_client_pushes_it_pulls_from_two_origins(hub: Hub) -> None:
    url = HfApi().create_repo(REPO)
    assert url == f"{hub.url}/{REPO}"
    first = HfApi().model_info(REPO).sha
    assert first == hub.head(REPO)
    assert list(hub.files(REPO)) == [".gitattributes"]
    head = push(CONTENT, parent_commit=str(first))
    assert head == hub.head(REPO) != first
    files = hub.repository(REPO).at("main").files
    assert [path for path, file in files.items() if file.lfs] == ["model.safetensors"]

    for path, data in CONTENT.items():
        local = Path(hf_hub_download(REPO, path))
        assert local.read_bytes() == data
        assert local.parent.name == head  # X-Repo-Commit is known, for LFS as well
    stored = hub.asked(
        f"^(PUT|GET) {hub.storage_url}/objects/{hashlib.sha256(WEIGHTS).hexdigest()}"
    )
    assert [one.method for one in stored] == ["PUT", "GET"]
    assert not any("authorization" in one.headers for one in stored)
    assert all(hub.token in one.headers["authorization"] for one in hub.asked(hub.url + "/org"))


def test_the_same_content_again_is_no_commit(hub: Hub) -> None:
    HfApi().create_repo(REPO)
    assert push(CONTENT) == push(CONTENT) == hub.head(REPO)
    assert len(HfApi().list_repo_commits(REPO)) == 2


def test_a_snapshot_holds_every_file_and_is_not_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    hub.add_repo(REPO)
    head = hub.commit(REPO, CONTENT | {"folder/deep/weights.bin": b"abc"})
    folder = Path(snapshot_download(REPO))
    assert folder.name == head
    assert folder.is_relative_to(tmp_path)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == hub.files(REPO)
    assert [repo.repo_id for repo in scan_cache_dir().repos] == [REPO]
    hub.requests.clear()
    snapshot_download(REPO)
    assert not hub.asked("GET .*(resolve|objects)")
    tree = {entry.path for entry in HfApi().list_repo_tree(REPO, recursive=True)}
    assert tree == set(hub.files(REPO)) | {"folder", "folder/deep"}


def test_a_stale_parent_is_refused_and_nothing_changes(hub: Hub) -> None:
    old = hub.add_repo(REPO)
    new = hub.commit(REPO, {"other.txt": b"somebody was here"})
    with pytest.raises(HfHubHTTPError) as error:
        push(CONTENT, parent_commit=old)
    assert status(error) == 412
    assert hub.head(REPO) == new
    push(CONTENT, parent_commit=new)
    assert hub.files(REPO)["other.txt"] == b"somebody was here"


def test_files_branches_and_repositories_go_and_errors_are_named(hub: Hub) -> None:
    hub.add_repo(REPO)
    head = hub.commit(REPO, CONTENT)
    HfApi().create_branch(REPO, branch="next/one")
    operation = [CommitOperationDelete("config.json")]
    HfApi().create_commit(REPO, operation, commit_message="less", revision="next/one")
    assert "config.json" in hub.files(REPO)
    assert "config.json" not in hub.files(REPO, "next/one")
    assert hf_hub_download(REPO, "config.json", revision=head)
    assert {b.name for b in HfApi().list_repo_refs(REPO).branches} == {"main", "next/one"}
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "config.json", revision="next/one")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(REPO, revision="v9")
    HfApi().delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info(REPO)


def test_tokens_open_private_repositories_and_are_needed_to_push(hub: Hub) -> None:
    hub.add_repo(REPO, private=True)
    hub.add_repo("org/open")
    anybody, stranger = HfApi(token=False), HfApi(token="hf_unknown")
    assert HfApi().whoami()["name"] == hub.tokens[hub.token]
    assert HfApi().model_info(REPO).private
    with pytest.raises(RepositoryNotFoundError):
        anybody.model_info(REPO)
    assert [model.id for model in anybody.list_models()] == ["org/open"]
    addition = [CommitOperationAdd("a.txt", b"a")]
    for refused in (
        lambda: stranger.whoami(),
        lambda: stranger.model_info("org/open"),
        lambda: anybody.create_repo("org/new"),
        lambda: anybody.create_commit("org/open", addition, commit_message="push"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refused()
        assert status(error) == 401
    assert list(hub.files("org/open")) == [".gitattributes"]


def test_models_are_found_by_their_cards(hub: Hub) -> None:
    for name in ("org/one", "org/two", "else/one"):
        hub.add_repo(name)
    hub.commit("org/one", {"README.md": CARD})
    found = list(HfApi().list_models(filter=["lib", "b"], full=True))
    assert [model.id for model in found] == ["org/one"]
    assert found[0].library_name == "lib"
    assert {"a", "b", "license:apache-2.0", "dataset:c"} <= set(found[0].tags or [])
    assert {m.id for m in HfApi().list_models(search="one")} == {"org/one", "else/one"}
    assert {m.id for m in HfApi().list_models(author="org")} == {"org/one", "org/two"}
    assert len(list(HfApi().list_models(limit=2))) == 2


@pytest.mark.parametrize(
    "card", ["license: Apache 2.0", "tags: [1, 2]", "a: [", "pipeline_tag: []"]
)
def test_a_bad_card_is_refused_before_anything_is_sent(hub: Hub, card: str) -> None:
    hub.add_repo(REPO)
    with pytest.raises(ValueError, match="Invalid metadata"):
        push({"README.md": f"---\n{card}\n---\n".encode()})
    assert not hub.asked("(preupload|commit)")


def test_an_object_that_is_not_what_was_announced_is_not_stored(hub: Hub) -> None:
    connection = http.client.HTTPConnection(urlsplit(hub.storage_url).netloc, timeout=5)
    path = f"/objects/{hashlib.sha256(WEIGHTS).hexdigest()}?size={len(WEIGHTS)}"
    for body, told in [(WEIGHTS[:-1], 400), (WEIGHTS[:-1] + b"x", 400), (WEIGHTS, 200)]:
        connection.request("PUT", path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == told


def test_an_answer_dropped_after_a_commit_leaves_the_commit(hub: Hub) -> None:
    first = hub.add_repo(REPO)
    hub.faults.drop_before("POST .*/commit/")
    with pytest.raises(Exception, match="disconnected"):
        push(CONTENT)
    assert hub.head(REPO) == first
    hub.faults.drop_after("POST .*/commit/")
    with pytest.raises(Exception, match="disconnected"):
        push(CONTENT)
    assert hub.head(REPO) != first
    assert hub.files(REPO)["model.safetensors"] == WEIGHTS
    assert len(hub.asked("POST .*/commit/")) == 2


def test_statuses_take_the_place_of_answers(hub: Hub) -> None:
    first = hub.add_repo(REPO)
    hub.faults.status("POST .*/commit/", 500)
    hub.faults.status("POST .*/commit/", 503, after=True)
    for told in (500, 503):
        assert hub.head(REPO) == first
        with pytest.raises(HfHubHTTPError) as error:
            push(CONTENT)
        assert status(error) == told
    assert hub.head(REPO) != first


def test_a_hook_moves_the_branch_between_reading_and_committing(hub: Hub) -> None:
    first = hub.add_repo(REPO)
    hub.faults.hook("POST .*/commit/", lambda: hub.commit(REPO, {"other.txt": b""}))
    with pytest.raises(HfHubHTTPError) as error:
        push(CONTENT, parent_commit=first)
    assert status(error) == 412
    assert set(hub.files(REPO)) == {".gitattributes", "other.txt"}


def test_wrong_bytes_of_the_right_size_reach_the_cache(hub: Hub) -> None:
    hub.add_repo(REPO)
    hub.commit(REPO, CONTENT)
    hub.faults.corrupt("GET .*/objects/")
    got = Path(hf_hub_download(REPO, "model.safetensors")).read_bytes()
    assert len(got) == len(WEIGHTS)
    assert sum(a != b for a, b in zip(got, WEIGHTS, strict=True)) == 1


def test_a_truncated_download_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.add_repo(REPO)
    hub.commit(REPO, CONTENT)
    hub.faults.truncate("GET .*/objects/")
    assert Path(hf_hub_download(REPO, "model.safetensors")).read_bytes() == WEIGHTS
    ranges = [one.headers.get("range") for one in hub.asked("GET .*/objects/")]
    assert ranges[0] is None
    assert len(ranges) == 2


def test_a_redirect_to_a_stranger_brings_him_no_token(hub: Hub) -> None:
    hub.add_repo(REPO, private=True)
    hub.commit(REPO, CONTENT)
    hub.faults.redirect("(HEAD|GET) .*/resolve/", times=None)
    for path in ("config.json", "model.safetensors"):
        assert Path(hf_hub_download(REPO, path)).read_bytes() == CONTENT[path]
    asked = hub.asked(f"GET {hub.elsewhere_url}/{REPO}/resolve/")
    assert len(asked) == 2
    assert not any(hub.token in str(one.headers) for one in asked)


def test_a_slow_body_takes_its_time(hub: Hub) -> None:
    hub.add_repo(REPO)
    hub.commit(REPO, CONTENT)
    hub.faults.slow("GET .*/objects/", seconds=0.5)
    began = time.monotonic()
    assert Path(hf_hub_download(REPO, "model.safetensors")).read_bytes() == WEIGHTS
    assert 0.5 <= time.monotonic() - began < 30


ROUND_TRIP = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi, __version__, snapshot_download

api = HfApi()
api.create_repo("org/model", private=True)
weights = bytes(range(256)) * 400
operations = [CommitOperationAdd("model.safetensors", weights), CommitOperationAdd("a.txt", b"a")]
parent = api.model_info("org/model").sha
api.create_commit("org/model", operations, commit_message="push", parent_commit=parent)
folder = snapshot_download("org/model")
assert open(f"{folder}/model.safetensors", "rb").read() == weights
assert [model.id for model in api.list_models(author="org")] == ["org/model"]
print(__version__, folder)
"""


@pytest.mark.parametrize("client", ["installed", "previous"])
def test_both_majors_of_the_client_go_the_whole_way_in_a_process_of_their_own(
    hub: Hub, client: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = hub.environment(tmp_path / "child")
    if client == "previous":
        environment["PYTHONPATH"] = str(request.getfixturevalue("previous_client"))
    command = [sys.executable, "-c", ROUND_TRIP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    version, folder = done.stdout.split()
    assert folder.startswith(str(tmp_path / "child"))
    assert hub.files(REPO)["model.safetensors"] == WEIGHTS
    installed = int(metadata.version("huggingface_hub").split(".")[0])
    assert int(version.split(".")[0]) == installed - (client == "previous")
    stored = hub.asked(f" {hub.storage_url}/")
    assert stored
    assert not any("authorization" in one.headers for one in stored)


def test_the_client_of_this_process_is_led_back_afterwards(tmp_path: Path) -> None:
    before = constants.ENDPOINT, constants.HF_HUB_CACHE, HfApi().endpoint
    hub = Hub()
    with pytest.MonkeyPatch.context() as patch:
        hub.point_client(patch, tmp_path)
        assert (constants.ENDPOINT, HfApi().endpoint) == (hub.url, hub.url)
        assert str(tmp_path / "hub") == constants.HF_HUB_CACHE
    hub.close()
    assert (constants.ENDPOINT, constants.HF_HUB_CACHE, HfApi().endpoint) == before
