"""What is pushed comes back the same, by whatever name; offline; and what is never read."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from entries import FILES, KINDS, REFINED, REPO, assert_same, loads, outcome
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from loopback_hub import Hub
from safetensors.torch import load_file, save_file
from torch import nn

from lit_mbldm.entries.fetch import pull
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained, push_pretrained

Modules = dict[str, nn.Module]
Folders = dict[str, Path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_that_is_pushed_comes_back_the_same(hub: Hub, modules: Modules, kind: str) -> None:
    push_pretrained(modules[kind], REPO)
    again = load_pretrained(REPO)
    assert_same(again, modules[kind])
    assert again.about == modules[kind].about
    assert len(outcome(again).unique(dim=0)) > 1
    assert set(hub.files(REPO)) - {".gitattributes"} == (REFINED if kind == "refined" else FILES)


@pytest.mark.parametrize("kind", ["codec", "refined"])
def test_a_folder_that_is_pushed_comes_back_byte_for_byte(
    hub: Hub, modules: Modules, folders: Folders, kind: str, tmp_path: Path
) -> None:
    push_pretrained(folders[kind], REPO)
    assert pull(REPO, out=tmp_path / "copy") == tmp_path / "copy"
    sent = {name: hub.files(REPO)[name] for name in (REFINED if kind == "refined" else FILES)}
    assert {n: (tmp_path / "copy" / n).read_bytes() for n in sent} == sent
    loads(tmp_path / "copy", modules[kind])
    pull(REPO, out=tmp_path / "copy")
    push_pretrained(tmp_path / "copy", "org/again")
    again = hub.files("org/again")
    renamed = again["README.md"].replace(b"org/again", REPO.encode())
    assert {**again, "README.md": renamed, "config.json": b""} == {
        **hub.files(REPO), "config.json": b""
    }  # fmt: skip
    (tmp_path / "copy" / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"already holds another README\.md"):
        pull(REPO, out=tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == "mine"


def test_a_link_out_of_the_cache_is_cut_and_its_file_kept(
    hub: Hub, folders: Folders, tmp_path: Path
) -> None:
    push_pretrained(folders["codec"], REPO)
    load_pretrained(REPO)
    (weights,) = (tmp_path / "huggingface").rglob("snapshots/*/model.safetensors")
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"mine")
    weights.unlink()
    weights.symlink_to(own)
    with pytest.raises(InputError, match="is damaged"):
        load_pretrained(REPO)
    assert own.read_bytes() == b"mine"
    load_pretrained(REPO)


def test_branches_and_commits_are_told_apart(hub: Hub, modules: Modules, folders: Folders) -> None:
    first = push_pretrained(folders["categorical"], REPO).commit
    second = push_pretrained(folders["continuous"], REPO, revision="model").commit
    assert {first, second} == {hub.head(REPO), hub.head(REPO, "model")}
    for name, revision, kind in [
        (REPO, None, "categorical"),
        (f"{REPO}@main", None, "categorical"),
        (f"{REPO}@{first}", None, "categorical"),
        (REPO, first, "categorical"),
        (f"{REPO}@model", None, "continuous"),
        (REPO, "model", "continuous"),
        (f"{REPO}@model", "model", "continuous"),
        (f"{REPO}@{second}", None, "continuous"),
    ]:
        loads(name, modules[kind], revision=revision)
    with pytest.raises(InputError, match="another revision"):
        load_pretrained(f"{REPO}@model", revision="main")
    push_pretrained(folders["continuous"], REPO)
    loads(REPO, modules["continuous"])  # a branch that moved on is followed
    hub.requests.clear()
    loads(REPO, modules["categorical"], revision=first)
    assert not hub.requests  # a commit that is in the cache needs no network


@pytest.mark.parametrize("read", [load_pretrained, pull])
def test_all_files_are_of_one_commit_though_the_branch_moves_meanwhile(
    hub: Hub, modules: Modules, folders: Folders, read: Callable[[str], Any]
) -> None:
    first = push_pretrained(folders["refined"], REPO).commit
    theirs = {path.name: path.read_bytes() for path in folders["codec"].iterdir()}
    hub.faults.hook("HEAD .*/model.safetensors", lambda: hub.commit(REPO, theirs))
    found = read(REPO)
    assert hub.head(REPO) != first
    assert_same(load_pretrained(found) if read is pull else found, modules["refined"])
    loads(REPO, modules["codec"])


def test_loading_fetches_what_it_needs_and_nothing_twice(
    hub: Hub, modules: Modules, folders: Folders, tmp_path: Path
) -> None:
    push_pretrained(folders["refined"], REPO)
    hub.requests.clear()
    loads(REPO, modules["refined"], cache_dir=tmp_path / "cache")
    assert len(hub.asked("GET .*/objects/")) == 2
    assert not hub.asked(r"README\.md|samples\.png")
    assert not (tmp_path / "huggingface" / "hub").exists()
    hub.requests.clear()
    loads(REPO, modules["refined"], cache_dir=tmp_path / "cache")
    assert not hub.asked("GET .*/(objects|resolve)/")


# what there is not, and what is never read


BERT = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 768}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"pytorch_model.bin": b"\x80"}, "is no entry.*lit-mbldm push.*Pickled.*never read"),
        ({"weights/model.pt": b"\x80"}, "is no entry.*lit-mbldm push.*Pickled.*never read"),
        ({"config.json": json.dumps(BERT).encode(), "model.safetensors": b"\0"}, "no entry of lit"),
    ],
)
def test_what_is_no_entry_is_refused_and_nothing_but_its_config_fetched(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    hub.add_repo(REPO)
    hub.commit(REPO, {**files, "README.md": b"# A model\n"})
    with pytest.raises(InputError, match=told):
        load_pretrained(REPO)
    assert not hub.asked(r"\.bin|\.pt|safetensors|/objects/")
    # a config is whole, and another library's to use
    kept = list((tmp_path / "huggingface").rglob("snapshots/*/config.json"))
    assert len(kept) == ("config.json" in files)


# without the network


@pytest.mark.parametrize("local", [True, False])
def test_the_cache_alone_serves_without_one_connection(
    hub: Hub, modules: Modules, folders: Folders, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    commit = push_pretrained(folders["refined"], REPO).commit
    load_pretrained(REPO)
    hub.requests.clear()

    def refuse(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not local)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in (REPO, f"{REPO}@main", f"{REPO}@{commit}"):
        loads(name, modules["refined"], local_files_only=local)
    for name in ("org/other", f"{REPO}@other"):
        with pytest.raises(InputError, match=r"not in the Hub's cache.*lit-mbldm pull"):
            load_pretrained(name, local_files_only=local)
    assert not hub.requests


def test_a_hub_that_cannot_be_reached_leaves_what_is_in_the_cache(
    hub: Hub, modules: Modules, folders: Folders, hasty: list[float]
) -> None:
    push_pretrained(folders["codec"], REPO)
    load_pretrained(REPO)
    for listener in hub.listeners:
        listener.close()
    close_session()  # which would keep its connections
    loads(REPO, modules["codec"])
    with pytest.raises(OSError, match=r"cannot be reached.*HF_HUB_OFFLINE=1"):
        load_pretrained("org/other")
    assert sum(hasty) < 60


# damage that the client does not see


def blob(home: Path, name: str) -> Path:
    """The file in the cache."""
    (found,) = home.glob(f"huggingface/hub/models--*/snapshots/*/{name}")
    return found.resolve()


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 2
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "refiner/config.json"])
def test_damage_in_the_cache_is_named_and_mended(
    hub: Hub, modules: Modules, folders: Folders, tmp_path: Path, name: str
) -> None:
    push_pretrained(folders["refined"], REPO)
    load_pretrained(REPO)
    path = blob(tmp_path, name)
    good = path.read_bytes()
    for damaged in (good[:-3], good[: len(good) // 2], b"", good + b"\n{", None):
        if damaged is None:
            flip(path, len(good) // 3)
        else:
            path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{name} is damaged.*with the network"):
            load_pretrained(REPO, local_files_only=True)
        assert path.exists()
        with pytest.raises(InputError, match=f"{name} is damaged.*fetches it anew"):
            load_pretrained(REPO)
        assert not path.exists()
        loads(REPO, modules["refined"])
        assert path.read_bytes() == good


def test_a_pull_checks_every_file(hub: Hub, folders: Folders, tmp_path: Path) -> None:
    push_pretrained(folders["refined"], REPO)
    folder = pull(REPO)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == REFINED
    for name in ("README.md", "samples.png", "refiner/model.safetensors"):
        flip(blob(tmp_path, name), 20)
        with pytest.raises(InputError, match=f"{name} is damaged"):
            pull(REPO, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert pull(REPO) == folder


def test_a_pull_checks_more_than_the_bytes(hub: Hub, folders: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "unfit"
    shutil.copytree(folders["codec"], folder)
    tensors = load_file(folder / tiny.WEIGHTS)
    name = min(tensors)
    save_file({**tensors, name: tensors[name][:-1].clone()}, folder / tiny.WEIGHTS)
    tiny.rehash(folder)
    hub.add_repo(REPO)
    hub.commit(REPO, tiny.contents(folder))
    for out in (None, tmp_path / "copy"):
        with pytest.raises(InputError, match=f"do not fit each other.*{re.escape(name)}: expected"):
            pull(REPO, out=out)
    assert not (tmp_path / "copy").exists()
