"""A web server's file as one streamed answer."""

import base64
import string
import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

TIMEOUT = 30.0


class ChangedFileError(ValueError):
    """A file is another than the one whose beginning was read."""


class HttpStream:
    """The bytes of a file from a position on; from its beginning where the server knows no parts.

    Environment variables such as `https_proxy` hold; a user and password in the URL are sent to
    its host alone.

    Args:
        url: http or https.
        position: byte to begin at, where the server can.
        mark: that the file had when its first bytes came; None takes any.

    Attributes:
        position: byte it begins at.
        headers: of the answer.
        mark: what changes when the file does: ETag or date, and size, as far as the server tells.

    Raises:
        ChangedFileError: the file has another mark now.
        urllib.error.HTTPError: the server refuses.
        OSError: it cannot be reached, says nothing for `TIMEOUT` seconds, or, on reading, closes
            the connection too early.
    """

    def __init__(self, url: str, position: int = 0, mark: tuple[str, str] | None = None) -> None:
        request = build_request(url)
        if position:
            request.add_header("Range", f"bytes={position}-")
            if mark is not None and mark[0] and not mark[0].startswith("W/"):
                request.add_header("If-Range", mark[0])
        self._response = _answer(request, behind_end=position > 0)
        self.headers = self._response.headers
        self.position = position if self._response.status in (206, 416) else 0
        self._left = int(self.headers["Content-Length"] or 0)
        self.mark = self._mark()
        if mark is not None and any(
            old and new and old != new for old, new in zip(mark, self.mark, strict=True)
        ):
            self.close()
            raise ChangedFileError("the file was changed on the server while it was read")

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._response.status == 416:
            return b""
        data: bytes = self._response.read1(size)
        self._left -= len(data)
        if not data and self._left > 0:
            raise ConnectionError(f"the connection closed {self._left} bytes before the end")
        return data

    def _mark(self) -> tuple[str, str]:
        whole = self.headers["Content-Length"] if self._response.status == 200 else None
        size = (self.headers["Content-Range"] or "").rpartition("/")[2].replace("*", "")
        return self.headers["ETag"] or self.headers["Last-Modified"] or "", whole or size

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


def _answer(request: urllib.request.Request, behind_end: bool) -> Any:
    """The server's answer; that a position lies behind the end (416) is none of its errors."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if behind_end and error.code == 416:
            return error
        error.close()
        raise


def build_request(url: str) -> urllib.request.Request:
    """A request for a URL, whose user and password are sent to its host alone.

    Raises:
        ValueError: it is no URL; the message may hold its secrets.
    """
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    request = urllib.request.Request(
        quote(bare, safe=string.punctuation),
        # Compressed answers have other positions than the file.
        headers={"Accept-Encoding": "identity", "User-Agent": "lit-mbldm"},
    )
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(user.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request
