"""The loopback Hub as the official client finds it; the other tests here show the rest."""

import http.client
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from loopback_hub import Hub

REPO = "org/model"
WEIGHTS = bytes(range(256)) * 400
CONTENT = {"a.json": b"{}", "deep/model.safetensors": WEIGHTS, "s.png": b"\x89\0"}


def push(content: dict[str, bytes], parent: str | None = None) -> str:
    added = [CommitOperationAdd(path, data) for path, data in content.items()]
    return HfApi().create_commit(REPO, added, commit_message="push", parent_commit=parent).oid


def test_what_the_client_pushes_it_pulls_from_two_origins(hub: Hub) -> None:
    HfApi().create_repo(REPO)
    head = push(CONTENT, parent=str(HfApi().model_info(REPO).sha))
    assert push(CONTENT) == head == hub.head(REPO)  # the same content again is no commit
    assert [path for path, file in hub.repository(REPO).at("main").files.items() if file.lfs] == [
        "deep/model.safetensors"
    ]
    folder = Path(snapshot_download(REPO))
    assert folder.name == head
    for path, data in CONTENT.items():
        assert (folder / path).read_bytes() == data
    stored = hub.asked(f"{hub.storage_url}/objects/{sha256(WEIGHTS).hexdigest()}")
    assert [one.method for one in stored] == ["PUT", "GET"]
    assert not any("authorization" in one.headers for one in stored)
    tree = {entry.path for entry in HfApi().list_repo_tree(REPO, recursive=True)}
    assert tree == set(hub.files(REPO))


def test_branches_move_and_errors_are_named(hub: Hub) -> None:
    old = hub.add_repo(REPO)
    new = hub.commit(REPO, CONTENT)
    with pytest.raises(HfHubHTTPError, match="412"):
        push({"a.json": b"[]"}, parent=old)
    assert hub.head(REPO) == new
    HfApi().create_branch(REPO, branch="next/one")
    less = [CommitOperationDelete("a.json"), CommitOperationDelete("deep/")]
    HfApi().create_commit(REPO, less, commit_message="less", revision="next/one")
    assert hub.files(REPO, "next/one").keys() == {".gitattributes", "s.png"}
    assert hub.files(REPO).keys() > CONTENT.keys()
    with pytest.raises(EntryNotFoundError):
        HfApi().hf_hub_download(REPO, "a.json", revision="next/one")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(REPO, revision="v9")


def test_tokens_open_private_repositories_and_are_needed_to_push(hub: Hub) -> None:
    hub.add_repo(REPO, private=True)
    hub.add_repo("org/open")
    anybody, stranger = HfApi(token=False), HfApi(token="hf_unknown")
    assert HfApi().whoami()["name"] == hub.tokens[hub.token]
    assert HfApi().model_info(REPO).private
    assert [model.id for model in anybody.list_models()] == ["org/open"]
    for refused in (
        lambda: anybody.model_info(REPO),
        lambda: stranger.model_info("org/open"),
        lambda: anybody.create_repo("org/new"),
        lambda: anybody.create_branch("org/open", branch="b"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refused()
        assert error.value.response.status_code == 401


def test_only_what_was_announced_is_stored(hub: Hub) -> None:
    hub.add_repo(REPO)
    with pytest.raises(ValueError, match="Invalid metadata"):
        push({"README.md": b"---\nlicense: Apache 2.0\n---\n"})
    connection = http.client.HTTPConnection(urlsplit(hub.storage_url).netloc, timeout=5)
    path = f"/objects/{sha256(WEIGHTS).hexdigest()}?size={len(WEIGHTS)}"
    for body, told in [(WEIGHTS[:-1], 400), (WEIGHTS[:-1] + b"x", 400), (WEIGHTS, 200)]:
        connection.request("PUT", path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == told
