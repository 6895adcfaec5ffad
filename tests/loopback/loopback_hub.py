"""A Hub on the loopback device: the real protocol over HTTP, and what tests do behind its back."""

import os
import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from loopback_api import Api
from loopback_faults import Faults
from loopback_http import Exchange, Listener, Response
from loopback_storage import File, Repository, kept_by_lfs

TOKEN = "hf_loopbackTokenOfTheTests"
USER = "tester"
# variables that would lead a client to another Hub, login or proxy
FOREIGN = re.compile("(HF_|HUGGING|TRANSFORMERS_OFFLINE|(https?|all|ftp|no)_proxy$)", re.IGNORECASE)


class Hub:
    """A Hub of two origins: `url` (127.0.0.1), and `storage_url` (localhost) for LFS objects.

    Attributes:
        requests: All that was asked of any origin.
        faults: What is to go wrong: `hub.faults.drop_after("POST .*/commit/")`, for example.
        tokens: The valid tokens and their users; `token` is one of them.
    """

    def __init__(self) -> None:
        self.api, self.faults, self.token = Api(), Faults(), TOKEN
        self.requests: list[Exchange] = []
        self.tokens = self.api.tokens
        self.tokens[TOKEN] = USER
        self.listeners = [
            Listener(host, self.receive, self.api.answer) for host in ("127.0.0.1", "localhost")
        ]
        self.api.url, self.api.storage_url = (one.origin for one in self.listeners)
        self.url, self.storage_url = self.api.url, self.api.storage_url

    def receive(self, exchange: Exchange) -> Response:
        self.requests.append(exchange)
        return self.faults.answer(exchange)

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

    def commit(self, name: str, changes: Mapping[str, bytes | None], branch: str = "main") -> str:
        """Somebody else's commit (None removes a file); its sha."""
        files: dict[str, File | None] = dict.fromkeys(changes)
        for path, content in changes.items():
            if content is not None:
                file = files[path] = File(content, kept_by_lfs(path, len(content)))
                self.api.objects |= {file.sha256: content} if file.lfs else {}
        return self.repository(name).commit(branch, files, "edit").oid

    def asked(self, pattern: str) -> list[Exchange]:
        """The requests whose `METHOD http://host:port/path` holds the pattern."""
        return [one for one in self.requests if re.search(pattern, one.line)]

    # clients

    def environment(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """This process's environment without proxies and logins, for a client with that home."""
        kept = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        disabled = [f"HF_HUB_DISABLE_{what}" for what in ("XET", "TELEMETRY", "UPDATE_CHECK")]
        kept |= {"HF_ENDPOINT": self.url, "HF_HOME": str(cache)} | dict.fromkeys(disabled, "1")
        return kept if token is None else kept | {"HF_TOKEN": token}

    def point_client(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Lead the `huggingface_hub` of this process here; what it read at import is read again."""
        from huggingface_hub import constants, hf_api
        from huggingface_hub.utils import _http, close_session

        environment = self.environment(home)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        fresh = runpy.run_path(constants.__file__)
        for module in [m for n, m in sys.modules.items() if n.startswith("huggingface_hub")]:
            for name in filter(str.isupper, vars(module).keys() & fresh.keys()):
                monkeypatch.setattr(module, name, fresh[name])
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        here = ("http", "127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        monkeypatch.setattr(_http, "_HUB_ORIGINS", {here}, raising=False)
        close_session()
