"""What a loopback Hub answers to those who write: branches, uploads, commits."""

import base64
import hashlib
import json
from typing import Any

from loopback_http import Exchange, Response, ranged
from loopback_storage import File, Repository, StorageError, Store


class Writing(Store):
    """The endpoints of repositories that need a token."""

    def create_branch(
        self, exchange: Exchange, user: str, repo: Repository, branch: str
    ) -> Response:
        if branch in repo.branches:
            raise StorageError(409, f"Reference already exists: {branch}")
        repo.branches[branch] = repo.at(exchange.json().get("startingPoint", "main")).oid
        return Response(201)

    def delete_branch(
        self, exchange: Exchange, user: str, repo: Repository, branch: str
    ) -> Response:
        if branch == "main" or branch not in repo.branches:
            raise StorageError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        del repo.branches[branch]
        return Response()

    def preupload(self, exchange: Exchange, user: str, repo: Repository, revision: str) -> Response:
        commit = repo.at(revision)
        told = []
        for sent in exchange.json()["files"]:
            path, sample = sent["path"], base64.b64decode(sent["sample"])
            mode = "lfs" if commit.kept_by_lfs(path, sent["size"], sample) else "regular"
            one = {"path": path, "uploadMode": mode, "shouldIgnore": commit.ignores(path)}
            if old := commit.files.get(path):
                one["oid"] = old.sha256 if old.lfs else old.blob_oid
            told.append(one)
        return Response.of_json({"files": told, "commitOid": commit.oid})

    def lfs_batch(self, exchange: Exchange, user: str, repo: Repository) -> Response:
        objects = []
        for sent in exchange.json()["objects"]:
            one = {"oid": sent["oid"], "size": sent["size"]}
            if sent["oid"] not in self.objects:
                verify = f"{self.url}/{repo.name}.git/info/lfs/objects/verify"
                upload = f"{self.storage_url}/objects/{sent['oid']}?size={sent['size']}"
                one["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(one)
        kind = {"Content-Type": "application/vnd.git-lfs+json"}
        told = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
        return Response(body=json.dumps(told).encode(), headers=kind)

    def lfs_verify(self, exchange: Exchange, user: str, repo: Repository) -> Response:
        sent = exchange.json()
        if len(self.objects.get(sent["oid"], b"")) != sent["size"]:
            raise StorageError(404, f"Object {sent['oid']} is not stored")
        return Response.of_json({})

    def storage(self, exchange: Exchange) -> Response:
        """What the objects' origin says: PUT and GET of `/objects/{sha256}`."""
        oid = exchange.path.rsplit("/", 1)[-1]
        if exchange.request.method == "PUT":
            size = exchange.query.get("size", [""])[0]
            if hashlib.sha256(exchange.body).hexdigest() != oid or size != str(len(exchange.body)):
                return StorageError(400, "BadDigest: not the bytes announced").response()
            self.objects[oid] = exchange.body
            return Response(headers={"ETag": f'"{oid}"'})
        if oid not in self.objects:
            return StorageError(404, "NoSuchKey").response()
        return ranged(exchange, self.objects[oid], {"ETag": f'"{oid}"'})

    def commit(self, exchange: Exchange, user: str, repo: Repository, branch: str) -> Response:
        if "create_pr" in exchange.query:
            raise StorageError(501, "pull requests are not known here")
        lines = [json.loads(line) for line in exchange.body.splitlines() if line.strip()]
        head = next(line["value"] for line in lines if line["key"] == "header")
        changes = dict(self.changes(line["key"], line["value"]) for line in lines[1:])
        commit = repo.commit(
            branch, changes, head["summary"], head.get("description") or "", user,
            head.get("parentCommit"),
        )  # fmt: skip
        url = f"{self.url}/{repo.name}/commit/{commit.oid}"
        return Response.of_json({"success": True, "commitOid": commit.oid, "commitUrl": url})

    def changes(self, key: str, value: dict[str, Any]) -> tuple[str, File | None]:
        """One line of a commit as (path, new file or None)."""
        path = value["path"]
        if key == "file":
            content = value["content"]
            encoded = value.get("encoding") == "base64"
            return path, File(base64.b64decode(content) if encoded else content.encode(), lfs=False)
        if key == "lfsFile":
            if value["oid"] not in self.objects:
                raise StorageError(404, f"LFS object {value['oid']} was not uploaded")
            return path, File(self.objects[value["oid"]], lfs=True)
        if key in ("deletedFile", "deletedFolder"):
            return (path.rstrip("/") + "/" if key == "deletedFolder" else path), None
        raise StorageError(400, f"unknown operation {key!r}")
