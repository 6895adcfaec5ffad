"""The HTTP side of a loopback Hub: requests, responses, listeners that never print or hang."""

import json
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None  # bytes after which the connection is closed; None: all are sent

    @classmethod
    def of_json(cls, value: Any, status: int = 200, **headers: str) -> "Response":
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | names)


@dataclass(eq=False)
class Exchange:
    """A request being answered: faults look at it and decide what becomes of `respond`."""

    method: str
    target: str  # path and query, as sent
    headers: dict[str, str]  # names in lower case
    origin: str  # of the listener: http://host:port
    body: bytes = field(repr=False)
    answer: "Action" = field(repr=False)
    user: str | None = None  # set by the Hub

    @property
    def line(self) -> str:
        return f"{self.method} {self.origin}{self.target}"

    @property
    def path(self) -> str:
        """The path as sent, without its query: %2F stays apart from /."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def respond(self) -> Response:
        """The answer that a faultless Hub gives, with all that it does on the way."""
        return self.answer(self)


Action = Callable[[Exchange], Response]


def ranged(exchange: Exchange, content: bytes, headers: dict[str, str]) -> Response:
    """The content, or the part of it that a Range header asks for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("range", ""))
    if asked is None:
        return Response(200, content, headers)
    start, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    told = {"Content-Range": f"bytes {start}-{last}/{len(content)}"}
    return Response(206, content[start : last + 1], headers | told)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds of silence after which a connection is closed
    disable_nagle_algorithm = True
    server: "Listener"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body, listener = self.rfile.read(int(headers.get("content-length", 0))), self.server
        asked = self.command, self.path, headers
        answer = listener.receive(Exchange(*asked, listener.origin, body, listener.answer))
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        body = b"" if self.command == "HEAD" else answer.body[: answer.sent]
        self.wfile.write(body)
        self.close_connection |= answer.sent is not None

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815


class Listener(ThreadingTCPServer):
    """One origin: a free port of 127.0.0.1, reached as `host`.

    `receive` answers what comes, and may ask `answer`, which knows of no faults.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, receive: Action, answer: Action) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = f"http://{host}:{self.server_address[1]}"
        self.receive, self.answer = receive, answer
        self.errors: list[str] = []  # of this server itself; a connection that breaks is none
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            self.errors.append(traceback.format_exc())

    def close(self) -> None:
        self.shutdown()
        self.server_close()
