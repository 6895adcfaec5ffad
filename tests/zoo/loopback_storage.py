"""What a loopback Hub holds: repositories, their branches and commits, files and LFS objects."""

import hashlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from threading import RLock
from typing import Any

import yaml
from loopback_http import Response

LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.mlmodel *.model *.msgpack *.npy "
    "*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors "
    "saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
GIT_ATTRIBUTES = re.sub(r"(\S+) ?", r"\1 filter=lfs diff=lfs merge=lfs -text\n", LFS_PATTERNS)
LARGEST_REGULAR = 10_000_000  # bytes
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


class StorageError(Exception):
    """A request that is refused: HTTP status, message, X-Error-Code and other headers."""

    def __init__(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}

    def response(self) -> Response:
        message = self.message.encode("ascii", "backslashreplace").decode().replace("\n", " ")
        headers = self.headers | {"X_Error_Message": message}
        headers |= {"X_Error_Code": self.code} if self.code else {}
        return Response.of_json({"error": self.message}, self.status, **headers)


@dataclass(frozen=True)
class File:
    """A file of a commit, kept by git itself or, with `lfs`, as an object beside it."""

    content: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git keeps of an LFS file."""
        head = "version https://git-lfs.github.com/spec/v1\n"
        return f"{head}oid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @cached_property
    def blob_oid(self) -> str:
        """The sha1 by which git names the file."""
        blob = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()


@dataclass(frozen=True)
class Commit:
    parent: str | None
    files: dict[str, File]
    title: str
    message: str = ""
    author: str = "system"
    nanoseconds: int = field(default_factory=time.time_ns)

    @cached_property
    def oid(self) -> str:
        tree = sorted((path, file.blob_oid) for path, file in self.files.items())
        told = (self.parent, tree, self.title, self.message, self.author, self.nanoseconds)
        return hashlib.sha1(repr(told).encode()).hexdigest()

    @property
    def date(self) -> str:
        when = datetime.fromtimestamp(self.nanoseconds / 1e9, UTC)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def card(self) -> dict[str, Any]:
        """The YAML header of README.md, empty where there is none."""
        readme = self.files.get("README.md")
        return read_card(readme.content.decode()) if readme else {}

    def folders(self) -> set[str]:
        return {
            path.rsplit("/", depth)[0]
            for path in self.files
            for depth in range(1, path.count("/") + 1)
        }

    def ignores(self, path: str) -> bool:
        """Whether .gitignore names the file."""
        ignored = self.files[".gitignore"].content if ".gitignore" in self.files else b""
        return any(fnmatch(path, pattern) for pattern in ignored.decode().split())

    def kept_by_lfs(self, path: str, size: int, sample: bytes) -> bool:
        """Whether the Hub takes such a file as an LFS object."""
        attributes = self.files[".gitattributes"].content if ".gitattributes" in self.files else b""
        rules = [line.split() for line in attributes.decode().splitlines()]
        patterns = [rule[0] for rule in rules if "filter=lfs" in rule]
        name = path.rsplit("/", 1)[-1]
        listed = any(fnmatch(path if "/" in p else name, p) for p in patterns)
        binary = b"\0" in sample and not path.lower().endswith(PICTURES)
        return listed or binary or size > LARGEST_REGULAR


def read_card(readme: str) -> dict[str, Any]:
    """The YAML header of a model card; raises `StorageError` 400 where it is no mapping."""
    if not readme.startswith("---"):
        return {}
    try:
        card = yaml.safe_load(readme.split("---")[1]) or {}
    except yaml.YAMLError as error:
        raise StorageError(400, f"the card's header is no YAML: {error}") from error
    if not isinstance(card, dict):
        raise StorageError(400, "the card's header is no mapping")
    return card


class Repository:
    """One repository: commits by sha, branches, and whether it is private."""

    def __init__(self, name: str, private: bool, author: str = "system") -> None:
        self.name, self.private, self.downloads = name, private, 0
        attributes = File(GIT_ATTRIBUTES.encode(), lfs=False)
        first = Commit(None, {".gitattributes": attributes}, "initial commit", author=author)
        self.commits = {first.oid: first}
        self.branches = {"main": first.oid}
        self.lock = RLock()

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a sha or the beginning of one (7 characters or more)."""
        branch = "main" if revision == "HEAD" else revision.removeprefix("refs/heads/")
        found = [self.branches[branch]] if branch in self.branches else []
        if len(revision) >= 7 and not found:
            found = [oid for oid in self.commits if oid.startswith(revision)]
        if len(found) != 1:
            raise StorageError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[found[0]]

    def history(self, revision: str) -> Iterable[Commit]:
        commit: Commit | None = self.at(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def commit(
        self,
        branch: str,
        changes: dict[str, File | None],
        title: str,
        message: str = "",
        author: str = "somebody",
        parent: str | None = None,
    ) -> Commit:
        """Move `branch` by one commit; None removes a file, or all files of a folder `name/`.

        Raises:
            StorageError: 412 where the branch is no longer at `parent`, 404 for a branch or a file
                to be removed that is not there.
        """
        with self.lock:
            if branch not in self.branches:
                raise StorageError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            head = self.commits[self.branches[branch]]
            if parent is not None and not head.oid.startswith(parent):
                told = "A commit has happened since. Please refresh and try again."
                raise StorageError(412, told)
            files = dict(head.files)
            for path, file in changes.items():
                if file is not None:
                    files[path] = file
                    continue
                gone = [p for p in files if p == path or (path[-1] == "/" and p.startswith(path))]
                if not gone:
                    told = f"A file with this name doesn't exist: {path}"
                    raise StorageError(404, told, "EntryNotFound")
                for name in gone:
                    del files[name]
            commit = Commit(head.oid, files, title, message, author)
            self.commits[commit.oid] = commit
            self.branches[branch] = commit.oid
            return commit


class Store:
    """All that a Hub holds, and where it is reached."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # of LFS, by sha256
        self.tokens: dict[str, str] = {}  # token -> user
        self.url = self.storage_url = ""  # set when the listeners stand
