"""The protocol of a loopback Hub: who may ask what, and what each endpoint answers."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any
from urllib.parse import unquote

import yaml
from loopback_http import Exchange, Response, ranged
from loopback_storage import Commit, File, Repository, StorageError, kept_by_lfs

LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")  # identifiers are all of this form
PARTS = {"repo": "(?P<repo>[^/]+/[^/]+)", "at": "(?P<revision>[^/]+)", "path": "(?P<path>.+)"}
Endpoint = Callable[..., Response]
ROUTES: list[tuple[re.Pattern[str], Endpoint, bool]] = []


def route(line: str, writes: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Register the endpoint of `METHOD /path`; one that writes needs a token."""

    def register(endpoint: Endpoint) -> Endpoint:
        ROUTES.append((re.compile(line.format(**PARTS)), endpoint, writes))
        return endpoint

    return register


class Api:
    """All that a Hub holds, and its endpoints; those of a repository get it as an argument."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # of LFS, by sha256
        self.tokens: dict[str, str] = {}  # token -> user
        self.url = self.storage_url = ""  # set when the listeners stand

    def answer(self, exchange: Exchange) -> Response:
        """What the Hub says to a request; errors in the Hub's own form."""
        line = f"{exchange.method} {exchange.path}"
        try:
            for pattern, endpoint, writes in ROUTES:
                if match := pattern.fullmatch(line):
                    named: dict[str, Any] = {k: unquote(v) for k, v in match.groupdict("").items()}
                    exchange.user = self.user(exchange)
                    if writes and exchange.user is None:
                        raise StorageError(401, "Invalid username or password.")
                    if "repo" in named:
                        named["repo"] = self.repository(named["repo"], exchange.user)
                    return endpoint(self, exchange, **named)
            raise StorageError(404, "Sorry, we can't find the page you are looking for.")
        except StorageError as error:
            return error.response

    def user(self, exchange: Exchange) -> str | None:
        """Who asks; None without a token. An unknown token is refused."""
        sent = exchange.headers.get("authorization")
        if sent is None:
            return None
        if (token := sent.removeprefix("Bearer ")) not in self.tokens:
            raise StorageError(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def repository(self, name: str, user: str | None) -> Repository:
        """The repository, where `user` may see it; raises as the Hub does where not."""
        found = self.repositories.get(name)
        if user is None and (found is None or found.private):
            raise StorageError(401, "Invalid username or password.", "RepoNotFound")
        if found is None:
            raise StorageError(404, "Repository not found", "RepoNotFound")
        return found

    @route("POST /api/repos/create", writes=True)
    def create(self, exchange: Exchange) -> Response:
        sent = exchange.json()
        name = f"{sent.get('organization') or exchange.user}/{sent['name']}"
        told = {"url": f"{self.url}/{name}", "name": name}
        if name in self.repositories:
            return Response.of_json(told | {"error": "You already created this model repo"}, 409)
        private = sent.get("visibility") == "private" or bool(sent.get("private"))
        self.repositories[name] = Repository(name, private)
        return Response.of_json(told)

    @route("POST /api/validate-yaml")
    def validate_card(self, exchange: Exchange) -> Response:
        card, errors = read_card(exchange.json()["content"]), []
        if not LICENCE.fullmatch(str(card.get("license", "unknown"))):
            errors = [{"message": '"license" is not of the form that the Hub takes'}]
        told = {"errors": errors, "warnings": []}
        return Response.of_json(told, 400 if errors else 200)

    @route("GET /api/models")
    def list_models(self, exchange: Exchange) -> Response:
        wanted = {tag for value in exchange.query.get("filter", []) for tag in value.split(",")}
        words = exchange.query.get("search", [""])[0].lower()
        seen = [r for r in [*self.repositories.values()] if exchange.user or not r.private]
        told = [description(r, r.at("main")) for r in seen if words in r.name.lower()]
        return Response.of_json([one for one in told if wanted <= {*one["tags"]}])

    @route("GET /api/models/{repo}(/revision/{at})?")
    def info(self, exchange: Exchange, repo: Repository, revision: str) -> Response:
        return Response.of_json(description(repo, repo.at(revision or "main")))

    @route("GET /api/models/{repo}/tree/{at}")
    def tree(self, exchange: Exchange, repo: Repository, revision: str) -> Response:
        files = sorted(repo.at(revision).files.items())
        told = [{"type": "file", "path": path} | blob(file, "oid", "oid") for path, file in files]
        return Response.of_json(told)

    @route("(GET|HEAD) /{repo}/resolve/{at}/{path}")
    def resolve(self, exchange: Exchange, repo: Repository, revision: str, path: str) -> Response:
        commit = repo.at(revision)
        file = commit.file(path)
        told = {"ETag": f'"{file.blob_oid}"', "X-Repo-Commit": commit.oid}
        if not file.lfs:
            return ranged(exchange, file.content, told)
        linked = {
            "X-Linked-Etag": f'"{file.sha256}"',
            "X-Linked-Size": str(len(file.content)),
            "Location": f"{self.storage_url}/objects/{file.sha256}",
        }
        return Response(302, b"", linked | told)

    @route("POST /api/models/{repo}/branch/{at}", writes=True)
    def create_branch(self, exchange: Exchange, repo: Repository, revision: str) -> Response:
        if revision in repo.branches:
            raise StorageError(409, f"Reference already exists: {revision}")
        repo.branches[revision] = repo.at(exchange.json().get("startingPoint", "main")).oid
        return Response(201)

    @route("POST /api/models/{repo}/preupload/{at}", writes=True)
    def preupload(self, exchange: Exchange, repo: Repository, revision: str) -> Response:
        commit, told = repo.at(revision), []
        ignored = commit.files.get(".gitignore", File(b"", False)).content.decode().split()
        for sent in exchange.json()["files"]:
            path, old = sent["path"], commit.files.get(sent["path"])
            mode = "lfs" if kept_by_lfs(path, sent["size"]) else "regular"
            oid = {"oid": old.sha256 if old.lfs else old.blob_oid} if old else {}
            ignore = any(fnmatch(path, pattern) for pattern in ignored)
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": ignore} | oid)
        return Response.of_json({"files": told, "commitOid": commit.oid})

    @route(r"POST /{repo}\.git/info/lfs/objects/batch", writes=True)
    def lfs_batch(self, exchange: Exchange, repo: Repository) -> Response:
        objects = []
        for sent in exchange.json()["objects"]:
            one = {"oid": sent["oid"], "size": sent["size"]}
            if sent["oid"] not in self.objects:
                verify = f"{self.url}/{repo.name}.git/info/lfs/objects/verify"
                upload = f"{self.storage_url}/objects/{sent['oid']}?size={sent['size']}"
                one["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(one)
        return Response.of_json({"transfer": "basic", "objects": objects, "hash_algo": "sha256"})

    @route(r"POST /{repo}\.git/info/lfs/objects/verify", writes=True)
    def lfs_verify(self, exchange: Exchange, repo: Repository) -> Response:
        return Response.of_json({}, 200 if exchange.json()["oid"] in self.objects else 404)

    @route("(PUT|GET|HEAD) /objects/{path}")
    def storage(self, exchange: Exchange, path: str) -> Response:
        """An LFS object, named by its sha256, which the other origin keeps."""
        if exchange.method == "PUT":
            size = exchange.query.get("size", [""])[0]
            if hashlib.sha256(exchange.body).hexdigest() != path or size != str(len(exchange.body)):
                raise StorageError(400, "BadDigest: not the bytes announced")
            self.objects[path] = exchange.body
            return Response()
        if path not in self.objects:
            raise StorageError(404, "NoSuchKey")
        return ranged(exchange, self.objects[path], {"ETag": f'"{path}"'})

    @route("POST /api/models/{repo}/commit/{at}", writes=True)
    def commit(self, exchange: Exchange, repo: Repository, revision: str) -> Response:
        header, *lines = map(json.loads, exchange.body.splitlines())
        head = header["value"]
        changes = dict(self.change(line["key"], line["value"]) for line in lines)
        commit = repo.commit(revision, changes, head["summary"], head.get("parentCommit"))
        url = f"{self.url}/{repo.name}/commit/{commit.oid}"
        return Response.of_json({"success": True, "commitOid": commit.oid, "commitUrl": url})

    def change(self, key: str, value: dict[str, Any]) -> tuple[str, File | None]:
        """One line of a commit as (path, new file or None)."""
        if key == "file":
            return value["path"], File(base64.b64decode(value["content"]), lfs=False)
        if key == "deletedFile":
            return value["path"], None
        if key != "lfsFile" or value["oid"] not in self.objects:
            raise StorageError(400, f"an unknown operation or object: {key} {value}")
        return value["path"], File(self.objects[value["oid"]], lfs=True)


def description(repo: Repository, commit: Commit) -> dict[str, Any]:
    """What the Hub tells of a model."""
    card = read_card(commit.files.get("README.md", File(b"", False)).content.decode())
    tags = [card[name] for name in ("library_name", "pipeline_tag") if name in card]
    for field, kind in [("tags", ""), ("datasets", "dataset:"), ("license", "license:")]:
        value = card.get(field, [])
        tags += [f"{kind}{one}" for one in (value if isinstance(value, list) else [value])]
    told = {"id": repo.name, "sha": commit.oid, "private": repo.private, "tags": tags}
    siblings = [
        {"rfilename": path} | blob(file, "blobId", "sha256")
        for path, file in sorted(commit.files.items())
    ]
    return card | told | {"cardData": card, "siblings": siblings}


def blob(file: File, oid: str, sha256: str) -> dict[str, Any]:
    size = {"size": len(file.content)}
    lfs = {"lfs": {sha256: file.sha256, "pointerSize": 134} | size}
    return {oid: file.blob_oid} | size | (lfs if file.lfs else {})


def read_card(readme: str) -> dict[str, Any]:
    """The YAML header of a model card."""
    return (yaml.safe_load(readme.split("---")[1]) or {}) if readme.startswith("---") else {}
