"""The HTTP side of a loopback Hub: requests, responses, listeners that never print or hang."""

import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit


class Request(NamedTuple):
    """One entry of the request log; header names are in lower case."""

    method: str
    path: str  # with the query, as sent
    headers: dict[str, str]


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None  # bytes after which the connection is closed; None: all are sent
    seconds: float = 0.0  # over which the body is sent

    @classmethod
    def of_json(cls, value: Any, status: int = 200, **headers: str) -> "Response":
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return cls(status, json.dumps(value).encode(), kind | names)


class DroppedError(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Exchange:
    """A request being answered: faults look at it and decide what becomes of `respond`."""

    request: Request
    origin: str  # of the listener: http://host:port
    body: bytes
    answer: Callable[["Exchange"], Response]

    @property
    def line(self) -> str:
        return f"{self.request.method} {self.origin}{self.request.path}"

    @property
    def path(self) -> str:
        """The path as sent, without its query: %2F stays apart from /."""
        return urlsplit(self.request.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.request.path).query)

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def respond(self) -> Response:
        """The answer that a faultless Hub gives, with all that it does on the way."""
        return self.answer(self)


Action = Callable[[Exchange], Response]


def ranged(exchange: Exchange, content: bytes, headers: dict[str, str]) -> Response:
    """The content, or the part of it that a Range header asks for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.request.headers.get("range", ""))
    if asked is None:
        return Response(200, content, headers)
    start, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    if start > last:
        return Response(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
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
        request = Request(self.command, self.path, headers)
        self.server.log.append(request)
        body = self.rfile.read(int(headers.get("content-length", 0)))
        exchange = Exchange(request, self.server.origin, body, self.server.answer)
        action = self.server.take_fault(exchange)
        try:
            self.send(action(exchange) if action else exchange.respond())
        except DroppedError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def send(self, answer: Response) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body[: answer.sent]
        step = max(1, len(body) // 50) if answer.seconds else max(1, len(body))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(answer.seconds * step / max(1, len(body)))
        self.close_connection = self.close_connection or answer.sent is not None


class Listener(ThreadingTCPServer):
    """One origin: a free port of 127.0.0.1, reached as `host`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        host: str,
        log: list[Request],
        take_fault: Callable[[Exchange], Action | None],
        answer: Callable[[Exchange], Response],
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = f"http://{host}:{self.server_address[1]}"
        self.log, self.take_fault, self.answer = log, take_fault, answer
        self.errors: list[str] = []  # of this server itself; a client that leaves is none
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            self.errors.append(traceback.format_exc())

    def close(self) -> None:
        self.shutdown()
        self.server_close()
