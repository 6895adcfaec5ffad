"""Faults of the network: which pass, and what is said of those that do not."""

import time
import warnings
from collections.abc import Callable
from typing import TypeVar
from urllib.error import URLError

from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import public

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

T = TypeVar("T")


def patiently(url: str, action: Callable[[], T]) -> T:
    """Do something with a URL, again after each of `PAUSES` (seconds) where a fault may pass.

    Raises:
        InputError: as the action does.
        OSError: the fault stays; FileNotFoundError and PermissionError at once. The message names
            the URL without its secrets.
    """
    for attempt, pause in enumerate((*PAUSES, None)):
        try:
            return action()
        except InputError:
            raise
        except Exception as error:  # every file system has its own
            if (lasting := _lasting(error, url)) is not None:
                raise lasting from None
            reason = _reason(error, url)
            if pause is None:
                raise OSError(f"{public(url)}: {reason}, {attempt + 1} times") from None
        if attempt:
            warnings.warn(f"{public(url)}: {reason}; trying again in {pause:g} s.", stacklevel=2)
        time.sleep(pause)
    raise AssertionError


def _lasting(error: Exception, url: str) -> OSError | None:
    """The error to raise where trying again is of no use."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(f"{public(url)} does not exist")
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(f"{public(url)}: access is denied")
    refused = isinstance(status, int) and status < 500 and status not in (408, 425, 429)
    cause = error.reason if isinstance(error, URLError) else error
    if refused or isinstance(cause, ValueError | TypeError | IsADirectoryError):
        return OSError(f"{public(url)}: {_reason(error, url)}")
    return None


def _reason(error: Exception, url: str) -> str:
    """The error in words, without the secrets of the URL."""
    if (status := getattr(error, "status", None)) is not None:
        return f"HTTP {status} {getattr(error, 'reason', '')}".strip()
    told = error.reason if isinstance(error, URLError) else error
    text = str(told).replace(url, public(url)) or type(error).__name__
    user, at, _ = url.partition("://")[2].partition("@")
    for secret in (user if at else "", url.partition("?")[2]):
        text = text.replace(secret, "…") if secret else text
    return text
