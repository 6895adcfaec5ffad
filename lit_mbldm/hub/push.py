"""`push_pretrained`: an entry to the Hub, in one commit."""

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from torch import nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.entry_config import CARD, CONFIG, FILES, LIBRARY, read_config
from lit_mbldm.entries.fetch import blob_id, download
from lit_mbldm.entries.hub_errors import LOG_IN, hub_errors_explained, try_again
from lit_mbldm.entries.load import PICKLES, REPOSITORY, find_local, load_pretrained
from lit_mbldm.entries.tree import find_class
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import unstated
from lit_mbldm.hub.export import whole_entry
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import RefinerModule

# A push replaces a model by another of its kind alone.
_KINDS: tuple[type[nn.Module], ...] = (ImageCodec, DiffusionModule, RefinerModule)


@dataclass(frozen=True)
class Push:
    """What was sent, or would be.

    Attributes:
        url: where people find it.
        changes: what happens to each file, by path: `new`, `changed`, `same` or `removed`.
        sizes: of the entry's files in bytes, by path.
        commit: that holds the entry; None where there is none yet.
        unstated: what people look for in a card and this one does not state.
    """

    url: str
    changes: dict[str, str]
    sizes: dict[str, int]
    commit: str | None
    unstated: tuple[str, ...] = ()


def push_pretrained(
    model_or_path: nn.Module | str | Path,
    repo_id: str,
    private: bool = False,
    message: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Push a codec, a diffusion model or a refiner to the Hub, in one commit or not at all.

    Repository and branch are made where they are not there. An entry that is there already makes
    no commit. The token is that of the Hub's own login.

    Args:
        model_or_path: a module, or whatever `load_pretrained` takes; a folder's card and picture
            are sent as they are.
        repo_id: `org/repo`.
        private: make a new repository private; one that is public is refused.
        message: of the commit.
        revision: branch; the default branch otherwise.
        dry_run: see what would be sent, and change nothing.

    Raises:
        InputError: a model that does not load, no access, a repository with another kind of model,
            or a branch that somebody else moved meanwhile, which stays as it is.
        OSError: the Hub or the network fails; the branch stays as it was.

    Example:
        >>> push_pretrained("runs/mine/version_0", "org/repo", private=True)  # doctest: +SKIP
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise InputError(f"Expected org/repo, got {repo_id!r}. A branch is named as the revision.")
    if not dry_run and get_token() is None:
        raise InputError(f"A push needs a login: {LOG_IN}.")
    module, folder = model_or_path, None
    if not isinstance(module, nn.Module):
        module, folder = load_pretrained(module), find_local(module)
    branch = _Branch(HfApi(library_name=LIBRARY), repo_id, revision, module)
    with hub_errors_explained(repo_id, revision):
        found = branch.look()
    if private and found.public:
        raise InputError(f"{repo_id} is public: make it private in its settings on the Hub.")
    files = whole_entry(module, folder, f"{repo_id}@{revision}" if revision else repo_id)
    with hub_errors_explained(repo_id, revision):
        if not dry_run and found.head is None:
            branch.api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                branch.api.create_branch(repo_id, branch=revision, exist_ok=True)
        send = partial(branch.send, files, message or f"Push with {LIBRARY}", dry_run)
        commit, changes = try_again(send)
    sizes = {name: len(data) for name, data in files.items()}
    url = f"{constants.ENDPOINT}/{repo_id}"
    return Push(url, changes, sizes, commit, unstated(files[CARD].decode()))


@dataclass(frozen=True)
class _Found:
    head: str | None = None  # the branch's commit; None where there is no branch
    public: bool = False
    ids: Mapping[str, str] = field(default_factory=dict)  # sha256 of large files, or git's blob id


@dataclass(frozen=True)
class _Branch:
    """A branch of a repository, to which a module goes."""

    api: HfApi
    repository: str
    revision: str | None
    module: nn.Module

    def look(self) -> _Found:
        """Ask what is there; InputError where it is another kind of model than the module."""
        ask = partial(self.api.model_info, self.repository, files_metadata=True)
        try:
            info = ask(revision=self.revision)
            head = info.sha
        except RevisionNotFoundError:  # a new branch starts as the default one
            info, head = ask(), None
        except RepositoryNotFoundError:
            return _Found()
        ids = {f.rfilename: str(f.lfs.sha256 if f.lfs else f.blob_id) for f in info.siblings or []}
        other = any(name.endswith((".safetensors", *PICKLES)) for name in ids)
        if CONFIG in ids:
            with tempfile.TemporaryDirectory() as folder:
                path, there = download(self.repository, CONFIG, info.sha, folder), nn.Module
                with suppress(InputError):  # of another library, or of a newer version
                    there = find_class(read_config(path).model.get("class_path"))
            kinds = [kind for kind in _KINDS if isinstance(self.module, kind)]
            other = not any(issubclass(there, kind) for kind in kinds)
        if other:
            raise InputError(
                f"{self.repository} holds another kind of model than this"
                f" {type(self.module).__name__}, which a push would overwrite: choose another name."
            )
        return _Found(head, not info.private, ids)

    def send(
        self, files: Mapping[str, bytes], message: str, dry_run: bool
    ) -> tuple[str | None, dict[str, str]]:
        """Commit what differs; the commit that holds the files, and what happens to each.

        A second call after a lost answer finds them there, and sends nothing.
        """
        found = self.look()
        changes = dict.fromkeys(sorted((FILES & found.ids.keys()) - files.keys()), "removed")
        operations: list[Any] = [CommitOperationDelete(name) for name in changes]
        for name, data in sorted(files.items()):
            if found.ids.get(name) in (hashlib.sha256(data).hexdigest(), blob_id(data)):
                changes[name] = "same"
                continue
            changes[name] = "changed" if name in found.ids else "new"
            operations.append(CommitOperationAdd(name, data))
        if not operations or dry_run:
            return None if operations else found.head, changes
        commit = self.api.create_commit(
            self.repository,
            operations,
            commit_message=message,
            revision=self.revision,
            parent_commit=found.head,
        )
        return commit.oid, changes
