"""The protocol of a loopback Hub: who may ask what, and which endpoint answers."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from loopback_http import Exchange, Response
from loopback_read import Reading, as_list
from loopback_storage import Repository, StorageError, read_card
from loopback_write import Writing

LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")  # identifiers are all of this form
LISTS_OF_TEXT = ("tags", "datasets", "metrics", "language")
Endpoint = Callable[..., Response]


class Api(Reading, Writing):
    """All endpoints: those of an account here, those of a repository in the two others."""

    def __init__(self) -> None:
        super().__init__()
        repo = "/api/models/(?P<repo>[^/]+/[^/]+)"
        git = "/(?P<repo>[^/]+/[^/]+)"
        at = "(?P<revision>[^/]+)"
        self.account = routes(
            ("GET /api/whoami-v2", self.whoami),
            ("GET /api/agent-harnesses", lambda *_: Response.of_json({})),
            ("GET /api/models", self.list_models),
            ("POST /api/repos/create", self.create),
            ("DELETE /api/repos/delete", self.delete),
            ("POST /api/validate-yaml", self.validate_card),
        )
        self.reading = routes(
            (f"GET {repo}(/revision/{at})?", self.info),
            (f"GET {repo}/tree/{at}(/(?P<path>.+))?", self.tree),
            (f"POST {repo}/paths-info/{at}", self.paths_info),
            (f"GET {repo}/refs", self.refs),
            (f"GET {repo}/commits/{at}", self.commits),
            (f"(GET|HEAD) {git}/resolve/{at}/(?P<path>.+)", self.resolve),
            (f"(GET|HEAD) {git}/raw/{at}/(?P<path>.+)", self.raw),
        )
        self.writing = routes(
            (f"POST {repo}/branch/(?P<branch>[^/]+)", self.create_branch),
            (f"DELETE {repo}/branch/(?P<branch>[^/]+)", self.delete_branch),
            (f"POST {repo}/preupload/{at}", self.preupload),
            (f"POST {repo}/commit/(?P<branch>[^/]+)", self.commit),
            (rf"POST {git}\.git/info/lfs/objects/batch", self.lfs_batch),
            (rf"POST {git}\.git/info/lfs/objects/verify", self.lfs_verify),
        )

    def answer(self, exchange: Exchange) -> Response:
        """What the Hub's own origin says to a request; errors in the Hub's own form."""
        try:
            return self.route(exchange, self.user(exchange))
        except StorageError as error:
            return error.response()

    def route(self, exchange: Exchange, user: str | None) -> Response:
        line = f"{exchange.request.method} {exchange.path}"
        if found := endpoint(self.account, line):
            return found[0](exchange, user)
        for known, writes in [(self.writing, True), (self.reading, False)]:
            if found := endpoint(known, line):
                answer, named = found
                repo = self.repository(named.pop("repo"), user, writes)
                return answer(exchange, user, repo, **named)
        raise StorageError(404, "Sorry, we can't find the page you are looking for.")

    def user(self, exchange: Exchange) -> str | None:
        """Who asks; None without a token. An unknown token is refused."""
        sent = exchange.request.headers.get("authorization")
        if sent is None:
            return None
        token = sent.removeprefix("Bearer ")
        if token not in self.tokens:
            raise StorageError(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def repository(self, name: str, user: str | None, writes: bool) -> Repository:
        """The repository, where `user` may see it; raises as the Hub does where not."""
        found = self.repositories.get(name)
        if user is None and (found is None or found.private or writes):
            raise StorageError(401, "Invalid username or password.", "RepoNotFound")
        if found is None:
            raise StorageError(404, "Repository not found", "RepoNotFound")
        return found

    def whoami(self, exchange: Exchange, user: str | None) -> Response:
        user = logged_in(user)
        role = {"auth": {"type": "access_token", "accessToken": {"role": "write"}}}
        return Response.of_json({"type": "user", "name": user, "fullname": user, "orgs": []} | role)

    def create(self, exchange: Exchange, user: str | None) -> Response:
        user, sent = logged_in(user), exchange.json()
        name = f"{sent.get('organization') or user}/{sent['name']}"
        told = {"url": f"{self.url}/{name}", "name": name}
        if name in self.repositories:
            return Response.of_json(told | {"error": "You already created this model repo"}, 409)
        private = sent.get("visibility") == "private" or bool(sent.get("private"))
        self.repositories[name] = Repository(name, private, user)
        return Response.of_json(told)

    def delete(self, exchange: Exchange, user: str | None) -> Response:
        user, sent = logged_in(user), exchange.json()
        name = f"{sent.get('organization') or user}/{sent['name']}"
        del self.repositories[self.repository(name, user, writes=True).name]
        return Response(body=b"OK")

    def validate_card(self, exchange: Exchange, user: str | None) -> Response:
        errors, warnings = [], []
        try:
            card = read_card(exchange.json()["content"])
            errors = card_errors(card)
            warnings = [] if card else ["empty or missing yaml metadata in repo card"]
        except StorageError as error:
            errors = [error.message]
        told = {
            "errors": [{"message": error} for error in errors],
            "warnings": [{"message": warning} for warning in warnings],
        }
        return Response.of_json(told, 400 if errors else 200)


def routes(*rows: tuple[str, Endpoint]) -> list[tuple[re.Pattern[str], Endpoint]]:
    return [(re.compile(pattern), answer) for pattern, answer in rows]


def endpoint(
    known: list[tuple[re.Pattern[str], Endpoint]], line: str
) -> tuple[Endpoint, dict[str, str]] | None:
    """The endpoint of `METHOD /path` and what the path names, decoded."""
    for pattern, answer in known:
        if match := pattern.fullmatch(line):
            return answer, {k: unquote(v) for k, v in match.groupdict().items() if v}
    return None


def logged_in(user: str | None) -> str:
    if user is None:
        raise StorageError(401, "Invalid username or password.")
    return user


def card_errors(card: dict[str, Any]) -> list[str]:
    """What the Hub would not take in a card's header."""
    errors = []
    for licence in as_list(card.get("license")):
        if not LICENCE.fullmatch(str(licence)):
            errors.append(f'"license" must be one of the known identifiers, not {licence!r}')
    for name in LISTS_OF_TEXT:
        value = card.get(name)
        if value is not None and not (
            isinstance(value, list | str) and all(isinstance(v, str) for v in value)
        ):
            errors.append(f'"{name}" must be an array of strings')
    for name in ("pipeline_tag", "library_name"):
        if not isinstance(card.get(name, ""), str):
            errors.append(f'"{name}" must be a string')
    return errors
