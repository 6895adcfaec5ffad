"""A web server's file as one streamed answer."""

import base64
import string
import urllib.request
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

TIMEOUT = 30.0
OK, PART, BEHIND_END = 200, 206, 416


class HttpStream:
    """The bytes of a file from a position on; from its beginning where the server knows no parts.

    Environment variables such as `https_proxy` hold. A user and password in the URL go to its host
    alone.

    Args:
        url: http or https.
        position: byte to begin at, where the server can.

    Attributes:
        position: byte it begins at.
        facts: what changes when the file does, as far as the server tells: ETag, date and size.

    Raises:
        urllib.error.HTTPError: the server refuses.
        OSError: it cannot be reached, says nothing for `TIMEOUT` seconds, or, on reading, closes
            the connection too early.
    """

    def __init__(self, url: str, position: int = 0) -> None:
        request = _build_request(url)
        if position:
            request.add_header("Range", f"bytes={position}-")
        try:
            self._response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except HTTPError as error:
            if error.code != BEHIND_END or not position:
                raise
            self._response = error
        headers, status = self._response.headers, self._response.status
        self._left = int(headers["Content-Length"] or 0) if status != BEHIND_END else 0
        self.position = position if status in (PART, BEHIND_END) else 0
        self.facts = {name: headers[name] for name in ("ETag", "Last-Modified") if headers[name]}
        size = headers["Content-Length"] if status == OK else headers["Content-Range"]
        if (size := (size or "").rpartition("/")[2]).isdecimal():
            self.facts["size"] = size

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._response.status == BEHIND_END:
            return b""
        data: bytes = self._response.read1(size)
        self._left -= len(data)
        if not data and self._left > 0:
            raise ConnectionError(f"the connection closed {self._left} bytes before the end")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


def _build_request(url: str) -> urllib.request.Request:
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
