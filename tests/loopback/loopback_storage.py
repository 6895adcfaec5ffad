"""What a loopback Hub holds: repositories, their branches and commits, files and LFS objects."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from threading import RLock

from loopback_http import Response

LFS_PATTERNS = ("*.bin", "*.ckpt", "*.npy", "*.npz", "*.pt", "*.safetensors", "*.tar", "*.zip")
GIT_ATTRIBUTES = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS)
LARGEST_REGULAR = 10_000_000  # bytes


class StorageError(Exception):
    """A request that is refused: HTTP status, message, X-Error-Code and other headers."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        ascii = message.encode("ascii", "backslashreplace").decode().replace("\n", " ")
        told = headers | {"X_Error_Message": ascii}
        told |= {"X_Error_Code": code} if code else {}
        self.response = Response.of_json({"error": message}, status, **told)


@dataclass(frozen=True)
class File:
    """A file of a commit, kept by git itself or, with `lfs`, as an object beside it."""

    content: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob_oid(self) -> str:
        """The sha1 by which git names the file, or what stands for it."""
        head = b"lfs" if self.lfs else b"blob %d\0" % len(self.content)
        return hashlib.sha1(head + self.content).hexdigest()


def kept_by_lfs(path: str, size: int) -> bool:
    """Whether the Hub takes such a file as an LFS object."""
    return size > LARGEST_REGULAR or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


@dataclass(frozen=True)
class Commit:
    parent: str | None
    files: dict[str, File]
    title: str

    @cached_property
    def oid(self) -> str:
        tree = sorted((path, file.blob_oid) for path, file in self.files.items())
        return hashlib.sha1(repr((self.parent, tree, self.title)).encode()).hexdigest()

    def file(self, path: str) -> File:
        if path not in self.files:
            told = f"Entry not found: {path}"
            raise StorageError(404, told, "EntryNotFound", X_Repo_Commit=self.oid)
        return self.files[path]


class Repository:
    """One repository: commits by sha, branches, and whether it is private."""

    def __init__(self, name: str, private: bool) -> None:
        self.name, self.private, self.lock = name, private, RLock()
        attributes = File(GIT_ATTRIBUTES.encode(), lfs=False)
        first = Commit(None, {".gitattributes": attributes}, "initial commit")
        self.commits = {first.oid: first}
        self.branches = {"main": first.oid}

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a sha or the beginning of one (7 characters or more)."""
        branch = "main" if revision == "HEAD" else revision
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
        self, branch: str, changes: dict[str, File | None], title: str, parent: str | None = None
    ) -> Commit:
        """Move `branch` by one commit; None removes a file.

        Raises:
            StorageError: 412 where the branch is no longer at `parent`, 404 for a branch or a file
                to be removed that is not there.
        """
        with self.lock:
            if branch not in self.branches:
                raise StorageError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            head = self.at(branch)
            if parent is not None and not head.oid.startswith(parent):
                raise StorageError(412, "A commit has happened since. Please refresh.")
            for path in changes:
                if changes[path] is None:
                    head.file(path)
            files = {path: file for path, file in (head.files | changes).items() if file}
            commit = Commit(head.oid, files, title)
            self.commits[commit.oid] = commit
            self.branches[branch] = commit.oid
            return commit
