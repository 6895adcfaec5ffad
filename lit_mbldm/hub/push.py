"""`push_pretrained`: an entry to the Hub, in one commit."""

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_token,
)
from huggingface_hub.errors import (
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.entry_config import CARD, CONFIG, LIBRARY
from lit_mbldm.entries.fetch import blob_id
from lit_mbldm.entries.hub_client import download
from lit_mbldm.entries.hub_errors import LOG_IN, PAUSES, hub_errors_explained, may_pass
from lit_mbldm.entries.load import PICKLES, REPOSITORY, find_folder, load_pretrained
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
        missing: what people look for in a card and this one does not state.
    """

    url: str
    changes: dict[str, str]
    sizes: dict[str, int]
    commit: str | None
    missing: tuple[str, ...] = ()


def push_pretrained(
    model_or_path: nn.Module | str | Path,
    repo_id: str,
    private: bool = False,
    message: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Push a codec, a diffusion model or a refiner to the Hub, in one commit or not at all.

    A repository that is missing is made. An entry that is there already makes no commit. The token
    is that of the Hub's own login.

    Args:
        model_or_path: a module, or whatever `load_pretrained` takes; a folder's card and picture
            are sent as they are.
        repo_id: `org/repo`.
        private: make a new repository private; one that is public is refused.
        message: of the commit.
        revision: branch, made where it is missing; the default branch otherwise.
        dry_run: see what would be sent, and change nothing.

    Raises:
        InputError: a model that does not load, no access, a repository with another kind of model,
            or a branch that somebody else moved meanwhile, which stays as it is.
        OSError: the Hub or the network fails; the branch stays as it was.

    Example:
        >>> push_pretrained("runs/mine/version_0", "org/repo", private=True)  # doctest: +SKIP
    """
    _check_request(repo_id, dry_run)
    folder: Path | None = None
    if isinstance(model_or_path, nn.Module):
        module = model_or_path
    else:
        module, folder = load_pretrained(model_or_path), find_folder(model_or_path)
    branch = _Branch(repo_id, revision, module)
    with hub_errors_explained(repo_id, revision):
        found = branch.look()
        if private and found.public:
            raise InputError(f"{repo_id} is public: make it private in its settings on the Hub.")
        files = whole_entry(module, folder, f"{repo_id}@{revision}" if revision else repo_id)
        if not dry_run:
            found = branch.prepare(found, private)
        changes = found.compare(files)
        commit = found.head if set(changes.values()) == {"same"} else None
        if commit is None and not dry_run:
            commit = branch.commit(found, files, changes, message or f"Push with {LIBRARY}")
            branch.check_whole(commit, files)
    sizes = {name: len(data) for name, data in files.items()}
    missing = unstated(files[CARD].decode())
    return Push(f"{constants.ENDPOINT}/{repo_id}", changes, sizes, commit, missing)


def _check_request(repo_id: str, dry_run: bool) -> None:
    if not REPOSITORY.fullmatch(repo_id):
        raise InputError(
            f"Expected a repository as org/repo, got {repo_id!r}. A branch is named as the"
            " revision."
        )
    if not dry_run and get_token() is None:
        raise InputError(f"A push needs a login: {LOG_IN}.")


@dataclass(frozen=True)
class _Found:
    """What a branch holds.

    Attributes:
        exists: whether there is a repository.
        public: whether everybody reads it.
        head: the branch's commit; None where there is no branch.
        ids: sha256 of large files and git's blob id of others, by path.
        entry: paths of the entry that is there.
    """

    exists: bool = False
    public: bool = False
    head: str | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    entry: frozenset[str] = frozenset()

    def compare(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """What happens to each file when these are pushed."""
        changes = dict.fromkeys(sorted(self.entry - files.keys()), "removed")
        for name, data in sorted(files.items()):
            same = self.ids.get(name) in (hashlib.sha256(data).hexdigest(), blob_id(data))
            changes[name] = "same" if same else "changed" if name in self.ids else "new"
        return changes


class _Branch:
    """A branch of a repository."""

    def __init__(self, repository: str, revision: str | None, module: nn.Module) -> None:
        self._api = HfApi(library_name=LIBRARY)
        self._repository = repository
        self._revision = revision
        self._kind = next((k for k in _KINDS if isinstance(module, k)), type(module))

    def look(self, commit: str | None = None) -> _Found:
        """Ask what is there, or what a commit holds.

        Raises:
            InputError: another kind of model.
        """
        try:
            info = self._info(commit or self._revision)
            head = info.sha
        except RevisionNotFoundError:  # a new branch starts as the default one
            info, head = self._info(None), None
        except RepositoryNotFoundError:
            return _Found()
        ids = {f.rfilename: str(f.lfs.sha256 if f.lfs else f.blob_id) for f in info.siblings or []}
        entry = self._read_entry(info.sha, ids.keys())
        return _Found(True, not info.private, head, ids, entry)

    def _info(self, revision: str | None) -> ModelInfo:
        return self._api.model_info(self._repository, revision=revision, files_metadata=True)

    def _read_entry(self, commit: str | None, names: Set[str]) -> frozenset[str]:
        config = self._read_config(commit) if CONFIG in names else {}
        listed = config.get("sha256")
        if config.get("library") == LIBRARY and isinstance(listed, dict):
            if self._has_kind(config.get("model")):
                return frozenset(listed) & names
        elif not any(n == CONFIG or n.endswith((".safetensors", *PICKLES)) for n in names):
            return frozenset()
        raise InputError(
            f"{self._repository} holds another kind of model than this {self._kind.__name__}, which"
            " a push would overwrite: choose another name."
        )

    def _has_kind(self, tree: object) -> bool:
        try:
            return isinstance(tree, dict) and issubclass(
                find_class(tree.get("class_path")), self._kind
            )
        except InputError:  # of a newer version
            return False

    def _read_config(self, commit: str | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = download(self._repository, CONFIG, commit, folder)
            try:
                config = json.loads(path.read_bytes())
            except ValueError:
                return {}
        return config if isinstance(config, dict) else {}

    def prepare(self, found: _Found, private: bool) -> _Found:
        """Make the repository and the branch where they are missing."""
        if found.head is not None:
            return found
        if not found.exists:
            self._api.create_repo(self._repository, private=private)
        if self._revision is not None:
            self._api.create_branch(self._repository, branch=self._revision, exist_ok=True)
        return self.look()

    def commit(
        self, found: _Found, files: Mapping[str, bytes], changes: Mapping[str, str], message: str
    ) -> str:
        """Commit on top of what was found, or not at all.

        An answer may get lost after the Hub made the commit, so that after every failure the
        branch itself tells whether it is there.

        Raises:
            InputError: somebody else moved the branch.
        """
        for pause in PAUSES:
            try:
                return self._api.create_commit(
                    self._repository,
                    _operations(files, changes),
                    commit_message=message,
                    revision=self._revision,
                    parent_commit=found.head,
                ).oid
            except (HTTPError, OSError, RuntimeError, ValueError) as error:
                now = self.look()
                if now.head is not None and set(now.compare(files).values()) == {"same"}:
                    return now.head
                if now.head != found.head:
                    raise InputError(
                        f"Somebody else moved {self._repository} from {found.head} to {now.head}"
                        " meanwhile. Nothing was overwritten: look at it, and push again."
                    ) from error
                if pause is None or not may_pass(error):
                    raise
                time.sleep(pause)
        raise AssertionError

    def check_whole(self, commit: str, files: Mapping[str, bytes]) -> None:
        """See that the Hub took every file: it leaves out what a repository's .gitignore names."""
        changes = self.look(commit).compare(files)
        lacking = [name for name, change in changes.items() if change != "same"]
        if lacking:
            raise InputError(
                f"{self._repository} did not take {', '.join(lacking)}, so that its entry is"
                " broken. Remove them from its .gitignore, and push again."
            )


def _operations(
    files: Mapping[str, bytes], changes: Mapping[str, str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    return [
        CommitOperationDelete(name)
        if change == "removed"
        else CommitOperationAdd(name, files[name])
        for name, change in changes.items()
        if change != "same"
    ]
