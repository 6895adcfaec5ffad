"""What a loopback Hub answers to those who read: models, trees, histories, files."""

import hashlib
from typing import Any
from urllib.parse import parse_qs

from loopback_http import Exchange, Response, ranged
from loopback_storage import Commit, File, Repository, StorageError, Store


class Reading(Store):
    """The endpoints that change nothing."""

    def list_models(self, exchange: Exchange, user: str | None) -> Response:
        asked = exchange.query
        found = []
        for repo in list(self.repositories.values()):
            if repo.private and user is None:
                continue
            told = self.description(repo, repo.at("main"))
            wanted = [tag for value in asked.get("filter", []) for tag in value.split(",")]
            if (
                asked.get("search", [""])[0].lower() in repo.name.lower()
                and asked.get("author", [told["author"]])[0] == told["author"]
                and asked.get("pipeline_tag", [told["pipeline_tag"]])[0] == told["pipeline_tag"]
                and set(wanted) <= set(told["tags"])
            ):
                if "full" not in asked and "siblings" not in asked.get("expand", []):
                    del told["siblings"]
                if "cardData" not in asked and "cardData" not in asked.get("expand", []):
                    del told["cardData"]
                found.append(told)
        key = asked.get("sort", ["lastModified"])[0]
        found.sort(key=lambda told: (told.get(key) is not None, told.get(key)), reverse=True)
        return Response.of_json(found[: int(asked.get("limit", ["1000"])[0])])

    def info(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str = "main"
    ) -> Response:
        told = self.description(repo, repo.at(revision), "blobs" in exchange.query)
        return Response.of_json(told)

    def description(self, repo: Repository, commit: Commit, blobs: bool = False) -> dict[str, Any]:
        try:
            card = commit.card()
        except StorageError:  # the Hub shows a model whose card is broken as one without
            card = {}
        tags = [t for name in ("library_name", "pipeline_tag") if (t := card.get(name))]
        tags += as_list(card.get("tags"))
        for field, kind in [("datasets", "dataset"), ("license", "license")]:
            tags += [f"{kind}:{value}" for value in as_list(card.get(field))]
        siblings = [
            {"rfilename": path} | (blob(file, "blobId", "sha256") if blobs else {})
            for path, file in sorted(commit.files.items())
        ]
        return {
            "_id": hashlib.sha1(repo.name.encode()).hexdigest()[:24],
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.name.split("/")[0],
            "sha": commit.oid,
            "createdAt": list(repo.history("main"))[-1].date,
            "lastModified": commit.date,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": repo.downloads,
            "likes": 0,
            "tags": list(dict.fromkeys(tags)),
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
            "siblings": siblings,
        }

    def tree(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str, path: str = ""
    ) -> Response:
        commit = repo.at(revision)
        inside = f"{path.rstrip('/')}/" if path else ""
        recursive = exchange.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        names = [n for n in [*commit.folders(), *commit.files] if n.startswith(inside)]
        names = [n for n in names if recursive or "/" not in n[len(inside) :]]
        if not names:
            raise missing(path, commit)
        return Response.of_json([entry(commit, name) for name in sorted(names)])

    def paths_info(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str
    ) -> Response:
        commit = repo.at(revision)
        if "json" in exchange.request.headers.get("content-type", ""):
            paths = exchange.json()["paths"]
        else:
            paths = parse_qs(exchange.body.decode()).get("paths", [])
        known = commit.folders() | set(commit.files)
        return Response.of_json([entry(commit, path) for path in paths if path in known])

    def refs(self, exchange: Exchange, user: str | None, repo: Repository) -> Response:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
            for name, oid in repo.branches.items()
        ]
        empty: dict[str, list[Any]] = {"tags": [], "converts": [], "pullRequests": []}
        return Response.of_json({"branches": branches} | empty)

    def commits(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str
    ) -> Response:
        told = [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in repo.history(revision)
        ]
        return Response.of_json(told, X_Total_Count=str(len(told)))

    def resolve(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str, path: str
    ) -> Response:
        commit = repo.at(revision)
        file = commit.files.get(path)
        if file is None:
            raise missing(path, commit)
        repo.downloads += exchange.request.method == "GET"
        kept = {"X-Repo-Commit": commit.oid}
        if not file.lfs:
            return ranged(exchange, file.content, {"ETag": f'"{file.blob_oid}"'} | kept)
        linked = {
            "X-Linked-Etag": f'"{file.sha256}"',
            "X-Linked-Size": str(len(file.content)),
            "ETag": f'"{file.blob_oid}"',
            "Location": f"{self.storage_url}/objects/{file.sha256}",
        }
        return Response(302, b"", linked | kept)

    def raw(
        self, exchange: Exchange, user: str | None, repo: Repository, revision: str, path: str
    ) -> Response:
        commit = repo.at(revision)
        file = commit.files.get(path)
        if file is None:
            raise missing(path, commit)
        blob = file.pointer if file.lfs else file.content
        return ranged(exchange, blob, {"ETag": f'"{file.blob_oid}"', "X-Repo-Commit": commit.oid})


def missing(path: str, commit: Commit) -> StorageError:
    told = f"Entry not found: {path}"
    return StorageError(404, told, "EntryNotFound", {"X_Repo_Commit": commit.oid})


def as_list(value: Any) -> list[str]:
    return [] if value is None else [str(v) for v in value] if isinstance(value, list) else [value]


def blob(file: File, oid: str, sha256: str) -> dict[str, Any]:
    told: dict[str, Any] = {"size": len(file.content), oid: file.blob_oid}
    if file.lfs:
        size = {"size": len(file.content), "pointerSize": len(file.pointer)}
        told["lfs"] = {sha256: file.sha256} | size
    return told


def entry(commit: Commit, path: str) -> dict[str, Any]:
    """A file or folder as the tree endpoint tells it."""
    if path in commit.files:
        return {"type": "file", "path": path} | blob(commit.files[path], "oid", "oid")
    inside = sorted(f"{p}{f.blob_oid}" for p, f in commit.files.items() if p.startswith(path + "/"))
    oid = hashlib.sha1("".join(inside).encode()).hexdigest()
    return {"type": "directory", "path": path, "oid": oid, "size": 0}
