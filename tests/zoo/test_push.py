"""What a push sends, what it leaves alone, and whom it refuses."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from entries import ABOUT, FILES, KINDS, REFINED, REPO, loads
from huggingface_hub import ModelCard
from loopback_hub import Hub
from torch import nn

from lit_mbldm.cli import main
from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.fetch import pull
from lit_mbldm.errors import InputError
from lit_mbldm.hub.push import Push
from lit_mbldm.zoo import push_pretrained

Modules = dict[str, nn.Module]
Folders = dict[str, Path]
CHANGES = "(POST|PUT|DELETE) "
UPLOADS = "PUT .*/objects/"


def history(hub: Hub, branch: str = "main") -> list[str]:
    """Titles of a branch's commits, the last first."""
    return [commit.title for commit in hub.repository(REPO).history(branch)]


def entry(hub: Hub, branch: str = "main") -> set[str]:
    return set(hub.files(REPO, branch)) - {".gitattributes"}


def test_an_entry_goes_in_one_commit(hub: Hub, folders: Folders) -> None:
    push = push_pretrained(folders["refined"], REPO, message="Epoch 90")
    assert history(hub) == ["Epoch 90", "initial commit"]
    assert entry(hub) == REFINED
    files = hub.files(REPO)
    assert push == Push(
        url=f"{hub.url}/{REPO}",
        changes=dict.fromkeys(sorted(REFINED), "new"),
        sizes={name: len(files[name]) for name in REFINED},
        commit=hub.head(REPO),
    )
    config = json.loads(files["config.json"])
    others = {n: hashlib.sha256(files[n]).hexdigest() for n in REFINED - {"config.json"}}
    assert config["sha256"] == others
    (sent,) = hub.asked("POST .*/commit/")
    assert "lit_mbldm" in sent.headers["user-agent"]
    kept = hub.repository(REPO).at("main").files
    assert {name for name, file in kept.items() if file.lfs} == {
        name for name in REFINED if name.endswith(".safetensors")
    }


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("decoder", "image-feature-extraction"),
        ("refiner", "image-to-image"),
        ("refined", "unconditional-image-generation"),
    ],
)
def test_the_hub_indexes_the_card(hub: Hub, folders: Folders, kind: str, task: str) -> None:
    push_pretrained(folders[kind], REPO)
    data = ModelCard(hub.files(REPO)["README.md"].decode()).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "lit_mbldm", task)
    assert data.datasets == [ABOUT.data]
    assert {"lit-mbldm", "vector-quantization"} < set(data.tags)
    results = [(result.metric_type, result.metric_value) for result in data.eval_results]
    assert results == [("fid", 12.5), ("psnr", 27.25)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_that_a_card_tells_to_type_do_what_they_say(
    hub: Hub, modules: Modules, folders: Folders, kind: str
) -> None:
    push_pretrained(folders[kind], REPO)
    card = hub.files(REPO)["README.md"].decode()
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    known = {"images": images}
    exec(lines, known)
    made, module = known["images"], modules[kind]
    if kind == "decoder":
        assert torch.equal(known["plain"], module.codec.decode(known["codes"]))
    if isinstance(module, ImageCodec):
        expected = module.decode(module.encode(images))
    elif kind in ("refiner", "generative"):
        expected = module.refine(images)
    elif kind == "upscaler":
        expected = module.upscale(images, (64, 64), steps=2, seed=0)
    else:
        label = module.class_names[0] if module.class_names else None
        expected = module.sample(16, steps=2, seed=0, label=label)
    assert torch.equal(made, expected)


def test_what_changed_is_all_that_is_sent(hub: Hub, modules: Modules, tmp_path: Path) -> None:
    first = push_pretrained(modules["refined"], REPO)
    hub.requests.clear()
    again = push_pretrained(modules["refined"], REPO)
    assert again.commit == first.commit == hub.head(REPO)
    assert set(again.changes.values()) == {"same"}
    assert not hub.asked(CHANGES)
    card = pull(REPO, out=tmp_path / "copy") / "README.md"
    card.write_text(card.read_text() + "\nSeen by a person.\n")
    push = push_pretrained(tmp_path / "copy", REPO)
    changed = {name for name, change in push.changes.items() if change != "same"}
    assert changed == {"README.md", "config.json"}
    assert hub.files(REPO)["README.md"] == card.read_bytes()
    assert not hub.asked(UPLOADS)
    assert len(history(hub)) == 3


def test_files_of_the_entry_before_go_and_all_others_stay(
    hub: Hub, modules: Modules, folders: Folders
) -> None:
    push_pretrained(folders["refined"], REPO)
    others = {"notes.txt": b"mine", "refiner/notes.txt": b"mine too", "extra.safetensors": b"\0"}
    hub.commit(REPO, others)
    push = push_pretrained(folders["continuous"], REPO)
    assert {n for n, change in push.changes.items() if change == "removed"} == REFINED - FILES
    assert entry(hub) == FILES | set(others)
    assert {name: hub.files(REPO)[name] for name in others} == others
    loads(REPO, modules["continuous"])


def test_a_repository_made_by_hand_is_taken(hub: Hub, folders: Folders) -> None:
    """The Hub's own page makes a card with a licence."""
    hub.add_repo(REPO)
    hub.commit(REPO, {"README.md": b"---\nlicense: mit\n---\n"})
    push = push_pretrained(folders["codec"], REPO)
    assert push.changes["README.md"] == "changed"
    assert entry(hub) == FILES


@pytest.mark.parametrize(
    "theirs",
    [
        {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"\0"},
        {"config.json": b'{"library": "lit_mbldm", "sha256": 5}'},
        {"model.safetensors": b"\0"},
        {"model_index.json": b"{}", "unet/pytorch_model.bin": b"\0"},
    ],
    ids=lambda theirs: "+".join(theirs),
)
def test_another_kind_of_model_is_left_alone(
    hub: Hub, folders: Folders, theirs: dict[str, bytes]
) -> None:
    hub.add_repo(REPO)
    head = hub.commit(REPO, theirs)
    hub.requests.clear()
    for dry_run in (True, False):
        with pytest.raises(InputError, match="another kind of model"):
            push_pretrained(folders["codec"], REPO, dry_run=dry_run)
    assert hub.head(REPO) == head
    assert not hub.asked(CHANGES)


def test_a_private_repository_is_made_and_a_public_one_refused(
    hub: Hub, modules: Modules, folders: Folders
) -> None:
    push_pretrained(folders["codec"], REPO, private=True)
    assert hub.repository(REPO).private
    push_pretrained(folders["decoder"], REPO)
    assert hub.repository(REPO).private  # it stays so
    loads(REPO, modules["decoder"])
    head = hub.add_repo("org/public")
    for dry_run in (True, False):
        with pytest.raises(InputError, match="org/public is public"):
            push_pretrained(folders["codec"], "org/public", private=True, dry_run=dry_run)
    assert hub.head("org/public") == head


@pytest.mark.parametrize("exists", [True, False])
def test_a_branch_is_made_where_it_is_missing(
    hub: Hub, modules: Modules, folders: Folders, exists: bool
) -> None:
    if exists:
        push_pretrained(folders["categorical"], REPO)
    push = push_pretrained(folders["continuous"], REPO, revision="trial/one")
    assert push.commit == hub.head(REPO, "trial/one")
    assert entry(hub) == (FILES if exists else set())
    loads(f"{REPO}@trial/one", modules["continuous"])
    card = hub.files(REPO, "trial/one")["README.md"].decode()
    assert f'load_pretrained("{REPO}@trial/one")' in card
    again = push_pretrained(folders["continuous"], REPO, revision="trial/one")
    assert again.commit == push.commit


def test_a_dry_run_lists_and_changes_nothing(hub: Hub, folders: Folders) -> None:
    push = push_pretrained(folders["refined"], REPO, dry_run=True)
    assert push.changes == dict.fromkeys(sorted(REFINED), "new")
    assert push.commit is None
    assert REPO not in hub.api.repositories
    push_pretrained(folders["refined"], REPO)
    head = hub.head(REPO)
    hub.requests.clear()
    push = push_pretrained(folders["continuous"], REPO, dry_run=True)
    assert push.changes == {
        "README.md": "changed",
        "config.json": "changed",
        "model.safetensors": "same",
        "refiner/config.json": "removed",
        "refiner/model.safetensors": "removed",
        "samples.png": "changed",
    }
    assert push.commit is None
    branch = push_pretrained(folders["continuous"], REPO, revision="trial", dry_run=True)
    assert (branch.changes, branch.commit) == (push.changes, None)
    assert push_pretrained(folders["refined"], REPO, dry_run=True).commit == head
    assert (hub.head(REPO), set(hub.repository(REPO).branches)) == (head, {"main"})
    assert not hub.asked(CHANGES)


@pytest.mark.parametrize("name", ["model", "org/model@main", "a/b/c", "../model"])
def test_a_name_that_is_none_is_refused(hub: Hub, folders: Folders, name: str) -> None:
    with pytest.raises(InputError):
        push_pretrained(folders["codec"], name)
    assert not hub.asked(CHANGES)


def test_a_card_that_the_hub_does_not_take_is_named(
    hub: Hub, folders: Folders, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["codec"], tmp_path / "copy"))
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("license: apache-2.0", "license: My Own"))
    with pytest.raises(InputError, match=r"(?s)README\.md.*license"):
        push_pretrained(folder, REPO)
    assert entry(hub) == set()
    assert not hub.asked(UPLOADS)


# tokens


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("token", [None, "hf_unknownTokenOfNobody"])
def test_without_a_valid_token_nothing_is_pushed(
    hub: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch, token: str | None, exists: bool
) -> None:
    if exists:
        hub.add_repo(REPO)
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match="hf auth login"):
        push_pretrained(folders["codec"], REPO)
    assert exists == (REPO in hub.api.repositories)
    assert not exists or entry(hub) == set()


def test_a_token_that_may_only_read_is_told_so(hub: Hub, folders: Folders) -> None:
    hub.faults.status("POST .*/(create|preupload|commit|branch)", 403, times=None)
    with pytest.raises(InputError, match=r"hf auth login.*may do this"):
        push_pretrained(folders["codec"], REPO)
    head = hub.add_repo(REPO)
    for revision in (None, "trial"):
        with pytest.raises(InputError, match=r"hf auth login.*may do this"):
            push_pretrained(folders["codec"], REPO, revision=revision)
    assert hub.head(REPO) == head


def test_a_token_goes_to_the_hub_alone(
    hub: Hub,
    folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not to its storage, and into no file and no line that is printed."""
    monkeypatch.chdir(tmp_path)
    main(["push", str(folders["codec"]), REPO, "--private"])
    main(["pull", REPO, "copy"])
    printed = capfd.readouterr()
    assert hub.token not in printed.out + printed.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if hub.token.encode() in path.read_bytes()]
    assert not [n for n, data in hub.files(REPO).items() if hub.token.encode() in data]
    stored = hub.asked(f" {hub.storage_url}/")
    assert {one.method for one in stored} == {"GET", "PUT"}
    assert not [one for one in stored if hub.token in str(one)]
    assert hub.asked("POST .*/commit/")[0].headers["authorization"] == f"Bearer {hub.token}"


@pytest.mark.parametrize(
    ("there", "same", "others"),
    [
        ("codec", "decoder", ["refined", "refiner"]),
        ("continuous", "categorical", ["codec", "refiner"]),
        ("refiner", "refiner", ["codec", "refined"]),
    ],
)
def test_a_push_replaces_models_of_its_own_kind_alone(
    hub: Hub, modules: Modules, there: str, same: str, others: list[str]
) -> None:
    head = push_pretrained(modules[there], REPO).commit
    for other in others:
        for revision in (None, "trial"):
            with pytest.raises(InputError, match="another kind of model"):
                push_pretrained(modules[other], REPO, revision=revision)
    assert hub.head(REPO) == head
    assert set(hub.repository(REPO).branches) == {"main"}
    push_pretrained(modules[same], REPO)
