"""`push_pretrained`: an entry to the Hub, in one commit."""

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError
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
from lit_mbldm.training import Refiner
from lit_mbldm.training.diffusion import DiffusionModule

# A push replaces a model by another of its kind alone.
_KINDS: tuple[type[nn.Module], ...] = (ImageCodec, DiffusionModule, Refiner)


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
        raise InputError(
            f"Expected a repository as org/repo, got {repo_id!r}. A branch is named as the"
            " revision."
        )
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
            found = branch.look()
        changes = found.compare(files)
        commit = found.head if set(changes.values()) == {"same"} else None
        if commit is None and not dry_run:
            commit = branch.commit(found, files, message or f"Push with {LIBRARY}")
    sizes = {name: len(data) for name, data in files.items()}
    url = f"{constants.ENDPOINT}/{repo_id}"
    return Push(url, changes, sizes, commit, unstated(files[CARD].decode()))


@dataclass(frozen=True)
class _Found:
    """A branch's commit, None where there is none; whether everybody reads it; its files.

    Files are known by the sha256 of large ones and git's blob id of others.
    """

    head: str | None = None
    public: bool = False
    ids: Mapping[str, str] = field(default_factory=dict)

    def compare(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """What happens to each file of an entry when these are pushed."""
        changes = dict.fromkeys(sorted((FILES & self.ids.keys()) - files.keys()), "removed")
        for name, data in sorted(files.items()):
            same = self.ids.get(name) in (hashlib.sha256(data).hexdigest(), blob_id(data))
            changes[name] = "same" if same else "changed" if name in self.ids else "new"
        return changes


@dataclass(frozen=True)
class _Branch:
    """A branch of a repository, to which a module goes."""

    api: HfApi
    repository: str
    revision: str | None
    module: nn.Module

    def look(self, commit: str | None = None) -> _Found:
        """Ask what is there, or what a commit holds; InputError where it is another kind."""
        ask = partial(self.api.model_info, files_metadata=True)
        try:
            info = ask(self.repository, revision=commit or self.revision)
            head = info.sha
        except RevisionNotFoundError:  # a new branch starts as the default one
            info, head = ask(self.repository), None
        except RepositoryNotFoundError:
            return _Found()
        ids = {f.rfilename: str(f.lfs.sha256 if f.lfs else f.blob_id) for f in info.siblings or []}
        weights = any(name.endswith((".safetensors", *PICKLES)) for name in ids)
        if not self._is_kind_of(info.sha) if CONFIG in ids else weights:
            raise InputError(
                f"{self.repository} holds another kind of model than this"
                f" {type(self.module).__name__}, which a push would overwrite: choose another name."
            )
        return _Found(head, not info.private, ids)

    def _is_kind_of(self, commit: str | None) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path, cls = download(self.repository, CONFIG, commit, folder), nn.Module
            with suppress(InputError):  # of another library, or of a newer version
                cls = find_class(read_config(path).model.get("class_path"))
        return any(isinstance(self.module, kind) and issubclass(cls, kind) for kind in _KINDS)

    def commit(self, found: _Found, files: Mapping[str, bytes], message: str) -> str:
        """Commit on top of what was found, or not at all.

        The answer may get lost, and .gitignore leaves files out: the branch tells what it holds.
        """
        operations = [
            CommitOperationDelete(name)
            if how == "removed"
            else CommitOperationAdd(name, files[name])
            for name, how in found.compare(files).items()
            if how != "same"
        ]
        commit, failure = None, None
        try:
            commit = try_again(
                self.api.create_commit,
                self.repository,
                operations,
                commit_message=message,
                revision=self.revision,
                parent_commit=found.head,
            ).oid
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            failure = error
        now = self.look(commit)
        others = [name for name, how in now.compare(files).items() if how != "same"]
        if now.head is not None and not others:
            return now.head
        if failure is not None and now.head == found.head:
            raise failure
        why = f"Somebody else moved it from {found.head} to {now.head}, and nothing was overwritten"
        if failure is None:
            why = "Its .gitignore names them, and its entry is broken"
        raise InputError(
            f"{self.repository} did not take {', '.join(others)}. {why}: mend it, and push again."
        ) from failure
