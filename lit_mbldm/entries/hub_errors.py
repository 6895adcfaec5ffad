"""What goes wrong with the Hub, in plain words and without secrets."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from json import JSONDecodeError
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lit_mbldm.errors import InputError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_PAUSES = (1.0, 4.0)  # seconds
Answer = TypeVar("Answer")


def try_again(ask: Callable[[], Answer]) -> Answer:
    """Ask the Hub, and again after a pause where the failure may pass."""
    for pause in _PAUSES:
        try:
            return ask()
        except HTTPError as error:
            if not _may_pass(error):
                raise
        time.sleep(pause)
    return ask()


@contextmanager
def hub_errors_explained(repository: str, revision: str | None = None) -> Iterator[None]:
    """Raise what the Hub's client raises in words that say what to do.

    Raises:
        InputError: it will fail again: not there, no access, or not in the cache while offline.
        OSError: the Hub or the network fails; it may pass.
    """
    try:
        yield
    except UnicodeError:  # what cannot be sent may be the token
        raise InputError(f"The login's token has odd characters: {LOG_IN}.") from None
    except (HTTPError, OSError, EntryNotFoundError, RuntimeError, ValueError) as error:
        cause = error.__cause__
        behind = isinstance(error, LocalEntryNotFoundError) or type(error) is RuntimeError
        told = cause if behind and isinstance(cause, HTTPError | OSError) else error
        explained = _explain(told, repository, revision or "its default branch")
        if explained is None:
            raise
        raise explained from error


def _may_pass(error: Exception) -> bool:
    if not isinstance(error, HfHubHTTPError):
        return True
    status = error.response.status_code
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _explain(error: Exception, repository: str, revision: str) -> Exception | None:
    hub = constants.ENDPOINT
    match error:
        case GatedRepoError():
            text = f"{repository} asks for consent: give it on {hub}/{repository}, and {LOG_IN}."
        case RepositoryNotFoundError():
            text = (
                f"{hub} has no repository {repository}, or it is private: check the name, and"
                f" {LOG_IN}. There is no local file or folder of that name either."
            )
        case RevisionNotFoundError():
            text = f"{repository} has no revision {revision}: name a branch, tag or commit."
        case LocalEntryNotFoundError():
            text = (
                f"{repository} at {revision} is not in the Hub's cache, and the network is not"
                f" used. Load it once with it, such as by `lit-mbldm pull {repository}`. There is"
                " no local file or folder of that name either."
            )
        case EntryNotFoundError():
            text = (
                f"{repository} at {revision} is no entry of lit_mbldm's zoo, or not a whole one"
                f" ({str(error).splitlines()[-1]}). Its owner can make one with `lit-mbldm push`."
                " Pickled weights (.bin, .ckpt, …) may run code and are never read."
            )
        case OfflineModeIsEnabled():
            text = "This needs the network, but HF_HUB_OFFLINE is set: unset it."
        case FileMetadataError() | JSONDecodeError():
            return OSError(f"{hub} does not answer as the Hub does: {error}")
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            text = (
                f"The Hub refuses access to {repository}: {LOG_IN}, with a token that may do this."
            )
        case HfHubHTTPError():
            text = f"{hub} answers {error.response.status_code} for {repository}"
            if _may_pass(error):
                return OSError(f"{text}. Try again later.")
            text += f": {error.server_message or error.response.reason_phrase}."
        case HTTPError():
            return OSError(
                f"{hub} cannot be reached ({type(error).__name__}: {error}). Check the connection,"
                " or load from the cache with HF_HUB_OFFLINE=1."
            )
        case HFValidationError():
            text = f"{repository} is no name of a repository: {error}"
        case ValueError() if isinstance(error.__cause__, BadRequestError):  # a card
            text = f"{hub} does not take the card of {repository}: {error}"
        case _:
            return None
    return InputError(text)
