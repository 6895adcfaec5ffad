"""A Hub on the loopback device: the real protocol over HTTP, and what tests do behind its back."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from loopback_api import Api
from loopback_faults import Faults
from loopback_http import Listener, Request
from loopback_storage import File, Repository

TOKEN = "hf_loopbackTokenOfTheTests"
USER = "tester"


class Hub:
    """A Hub of two origins: `url` (127.0.0.1), and `storage_url` (localhost) for LFS objects.

    The second also plays a stranger, `elsewhere_url`, to whom a fault may redirect: it serves any
    file to anybody, and never needs a token.

    Attributes:
        requests: All that was asked of any origin, as (method, path, headers); `headers["host"]`
            tells the origin.
        faults: What is to go wrong: `hub.faults.drop_after("POST .*/commit/")`, for example.
        tokens: The valid tokens and their users; `token` is one of them.
    """

    def __init__(self) -> None:
        self.api, self.token = Api(), TOKEN
        self.requests: list[Request] = []
        self.tokens = self.api.tokens
        self.tokens[TOKEN] = USER
        self.faults = Faults(lambda: self.elsewhere_url)
        self.listeners = [
            Listener(host, self.requests, self.faults.take, self.api.answer)
            for host in ("127.0.0.1", "localhost")
        ]
        self.url, self.storage_url = (one.origin for one in self.listeners)
        self.api.url = self.url
        self.api.storage_url = self.elsewhere_url = self.storage_url

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()

    @property
    def errors(self) -> list[str]:
        """Tracebacks of the servers' own mistakes."""
        return [error for listener in self.listeners for error in listener.errors]

    # what tests look at and change behind the client's back

    def repository(self, name: str) -> Repository:
        return self.api.repositories[name]

    def add_repo(self, name: str, private: bool = False) -> str:
        """A new repository, as `create_repo` makes it; its first commit's sha."""
        self.api.repositories[name] = Repository(name, private)
        return self.head(name)

    def head(self, name: str, branch: str = "main") -> str:
        return self.repository(name).branches[branch]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file, LFS or not, by path."""
        files = self.repository(name).at(revision).files
        return {path: file.content for path, file in files.items()}

    def commit(
        self,
        name: str,
        changes: Mapping[str, bytes | None],
        branch: str = "main",
        title: str = "edit",
    ) -> str:
        """Somebody else's commit (None removes a file); its sha."""
        repo = self.repository(name)
        files: dict[str, File | None] = dict.fromkeys(changes)
        for path, content in changes.items():
            if content is not None:
                file = files[path] = File(content, repo.at(branch).kept_by_lfs(path, len(content)))
                self.api.objects |= {file.sha256: content} if file.lfs else {}
        return repo.commit(branch, files, title).oid

    def asked(self, pattern: str) -> list[Request]:
        """The requests whose `METHOD http://host:port/path` holds the pattern."""
        return [
            one
            for one in self.requests
            if re.search(pattern, f"{one.method} http://{one.headers['host']}{one.path}")
        ]

    # clients

    def variables(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The environment variables that lead a client here, with its home in `cache`."""
        login = {} if token is None else {"HF_TOKEN": token}
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        } | login

    def environment(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The whole environment of a child process: this one's without proxies and logins."""
        kept = {name: value for name, value in os.environ.items() if not foreign(name)}
        return kept | self.variables(cache, token)

    def point_client(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Lead the `huggingface_hub` of this process here; what it read at import is replaced."""
        import huggingface_hub.hf_api
        from huggingface_hub import constants
        from huggingface_hub.utils import _http, close_session

        for name in filter(foreign, list(os.environ)):
            monkeypatch.delenv(name)
        for name, value in self.variables(home).items():
            monkeypatch.setenv(name, value)
        replaced = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
            "CHECK_FOR_UPDATE_DONE_PATH": str(home / ".check_for_update_done"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        own = [m for n, m in list(sys.modules.items()) if n.split(".")[0] == "huggingface_hub"]
        for module in own:
            for name in replaced.keys() & vars(module).keys():
                monkeypatch.setattr(module, name, replaced[name])
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", self.url)
        if origins := getattr(_http, "_HUB_ORIGINS", None):
            here = ("http", "127.0.0.1", int(self.url.rsplit(":", 1)[1]))
            monkeypatch.setattr(_http, "_HUB_ORIGINS", origins | {here})
        close_session()


def foreign(name: str) -> bool:
    """Whether an environment variable would lead a client to another Hub, login or proxy."""
    return name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")) or name.lower() in (
        "http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy",
    )  # fmt: skip
