import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

# the loopback Hub, for the tests that talk to it and for pytest, which looks for doctests in it
sys.path.append(str(Path(__file__).parent / "loopback"))


class FileServer:
    """Serves the files of a folder on loopback, and fails on demand.

    Attributes:
        folder: of the files.
        url: of the folder.
        ranges: whether it answers parts of files.
        etags: whether it tells when a file changes.
        bytes_a_second: how fast it sends.
        faults: for each file name, what befalls the next answers: None, a status instead of it,
            `("cut", n)` closes the connection before byte n of the file, `("stall", n)` stops
            there for a second.
        asked: path, range and credentials of each request.
    """

    def __init__(self, http: HTTPServer, folder: Path) -> None:
        self.folder = folder
        self.url = http.url_for("").rstrip("/")
        self.ranges = self.etags = True
        self.bytes_a_second = float("inf")
        self.faults: dict[str, Iterator[Any]] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        http.expect_request(re.compile("")).respond_with_handler(self.answer)

    def asked_for(self, name: str) -> list[str | None]:
        """The ranges that were asked of a file."""
        return [part for path, part, _ in self.asked if path.partition("?")[0].endswith(name)]

    def answer(self, request: Request) -> Response:
        asked = request.headers.get("Range")
        credentials = request.headers.get("Authorization")
        self.asked.append((request.environ["RAW_URI"], asked, credentials))
        path = self.folder / request.path.lstrip("/")
        fault = next(self.faults.get(path.name, iter(())), None)
        if isinstance(fault, int) or not path.is_file():
            return Response(status=fault if isinstance(fault, int) else 404)
        size = path.stat().st_size
        begin = int(asked[6:-1]) if asked and self.ranges else 0
        if begin >= size > 0:
            return Response(status=416)
        headers = {"Content-Length": str(size - begin)}
        if self.etags:
            headers["ETag"] = f'"{path.stat().st_mtime_ns}"'
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        return Response(self.body(path, begin, fault), 206 if begin else 200, headers)

    def body(self, path: Path, begin: int, fault: tuple[str, int] | None) -> Iterator[bytes]:
        kind, end = fault or (None, path.stat().st_size)
        with path.open("rb") as stream:
            stream.seek(begin)
            while data := stream.read(max(min(1 << 16, end - stream.tell()), 0)):
                yield data
                time.sleep(len(data) / self.bytes_a_second)
        if kind == "stall":
            time.sleep(1)


@pytest.fixture(scope="session")
def http() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1", threaded=True) as http:
        yield http


@pytest.fixture
def server(http: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    monkeypatch.setattr("lit_mbldm.storage.urls.PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    http.clear()
    return FileServer(http, tmp_path)
