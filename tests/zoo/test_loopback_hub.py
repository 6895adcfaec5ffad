"""What the loopback Hub refuses, as the Hub does; the other tests here show what it takes."""

import http.client
from hashlib import sha256
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from loopback_hub import Hub

REPO = "org/model"
ADD, REMOVE = CommitOperationAdd("a.json", b"[]"), CommitOperationDelete("b.json")


def test_what_nobody_may_see_or_change_is_refused(hub: Hub) -> None:
    old, api = hub.add_repo(REPO, private=True), HfApi()
    hub.add_repo("org/open")
    new = hub.commit(REPO, {"a.json": b"{}"})
    anybody, stranger = HfApi(token=False), HfApi(token="hf_unknown")
    assert [model.id for model in anybody.list_models()] == ["org/open"]
    for refused, status in [
        (lambda: anybody.model_info(REPO), 401),
        (lambda: stranger.model_info("org/open"), 401),
        (lambda: anybody.create_repo("org/new"), 401),
        (lambda: anybody.create_branch("org/open", branch="b"), 401),
        (lambda: api.create_commit(REPO, [ADD], commit_message="m", parent_commit=old), 412),
        (lambda: api.create_commit(REPO, [REMOVE], commit_message="m"), 404),
    ]:
        with pytest.raises(HfHubHTTPError) as error:
            refused()
        assert error.value.response.status_code == status
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "b.json")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    assert hub.head(REPO) == new


def test_only_what_was_announced_is_stored(hub: Hub) -> None:
    content = bytes(range(256))
    connection = http.client.HTTPConnection(urlsplit(hub.storage_url).netloc, timeout=5)
    path = f"/objects/{sha256(content).hexdigest()}?size={len(content)}"
    for body, told in [(content[:-1], 400), (content[:-1] + b"x", 400), (content, 200)]:
        connection.request("PUT", path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == told
