"""What the text of a path or URL tells, without opening it."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit


def is_url(name: str) -> bool:
    """Whether it is a URL and no local path."""
    return "://" in name


def is_http(url: str) -> bool:
    """Whether a web server is asked for it."""
    return url.lower().startswith(("http://", "https://"))


def public(url: str) -> str:
    """The URL without user, password and query, fit for a message; a local path as it is."""
    if not is_url(url):
        return url
    query = r"[?#].*" if is_http(url) else r"\?\S*=.*"
    return re.sub(query, "", re.sub(r"(?<=://)[^/]*@", "", url))


def without_secrets(text: str, url: str) -> str:
    """A text about a URL, without its user, password and query."""
    address, _, query = url.partition("?")
    user, at, _ = address.partition("://")[2].rpartition("@")
    for secret in (query, user if at else ""):
        text = text.replace(secret, "…") if secret else text
    return text


def base_name(url: str) -> str:
    """The last part of the path."""
    name = PurePosixPath(public(url)).name if is_url(url) else Path(url).name
    return unquote(name) if is_http(url) else name


def folder_of(url: str) -> str:
    """The folder a file lies in; a query stays."""
    if is_http(url):
        parts = urlsplit(url)
        return parts._replace(path=parts.path.rpartition("/")[0]).geturl()
    return url.rpartition("/")[0] if is_url(url) else str(Path(url).parent)


def in_folder(folder: str, name: str) -> str:
    """A file of a folder; a query stays."""
    if is_http(folder):
        parts = urlsplit(folder)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)
