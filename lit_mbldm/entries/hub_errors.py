"""What goes wrong with the Hub, in plain words and without secrets."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from huggingface_hub import constants, errors

from lit_mbldm.errors import InputError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_PAUSES = (1.0, 4.0)  # seconds
_NOT_HERE = "There is no local file or folder of that name either."
_NO_HUB = "{hub} does not answer as the Hub does: {error}"
# the first that fits, by the client's class
_TOLD: dict[type[Exception], str] = {
    errors.GatedRepoError: f"{{name}} asks for consent: give it on {{hub}}/{{name}}, and {LOG_IN}.",
    errors.RepositoryNotFoundError: "{hub} has no repository {name}, or it is private: check the"
    f" name, and {LOG_IN}. {_NOT_HERE}",
    errors.RevisionNotFoundError: "{name} has no revision {revision}: name another.",
    errors.LocalEntryNotFoundError: "{name} at {revision} is not in the Hub's cache, and the"
    f" network is not used. Load it once by `lit-mbldm pull {{name}}`. {_NOT_HERE}",
    errors.EntryNotFoundError: "{name} at {revision} is no entry of lit_mbldm's zoo, or not a whole"
    " one ({error}). Its owner can make one with `lit-mbldm push`. Pickled weights (.bin, .ckpt, …)"
    " may run code and are never read.",
    errors.OfflineModeIsEnabled: "This needs the network, but HF_HUB_OFFLINE is set: unset it.",
    errors.FileMetadataError: _NO_HUB,
    JSONDecodeError: _NO_HUB,
    errors.HfHubHTTPError: "{hub} answers {error} for {name}. {advice}",
    errors.HTTPError: "{hub} cannot be reached ({error}). Check the connection, or load from the"
    " cache with HF_HUB_OFFLINE=1.",
    ValueError: "{hub} does not take {name}: {error}",  # the name, or its card
}
_RAISED = (errors.HTTPError, OSError, errors.EntryNotFoundError, RuntimeError, ValueError)
Answer = TypeVar("Answer")


def try_again(ask: Callable[[], Answer]) -> Answer:
    """Ask the Hub, and again after a pause where the failure may pass."""
    for pause in _PAUSES:
        try:
            return ask()
        except errors.HTTPError as error:
            if not _may_pass(error):
                raise
        time.sleep(pause)
    return ask()


@contextmanager
def hub_errors_explained(name: str, revision: str | None = None) -> Iterator[None]:
    """Say what to do where the Hub's client raises: OSError may pass, InputError will not."""
    try:
        yield
    except UnicodeError:  # what cannot be sent may be the token
        raise InputError(f"The login's token has odd characters: {LOG_IN}.") from None
    except InputError:
        raise
    except _RAISED as error:
        told, cause = error, error.__cause__
        around = isinstance(error, errors.LocalEntryNotFoundError | RuntimeError)
        if around and isinstance(cause, errors.HTTPError | OSError):
            told = cause
        text = next((text for kind, text in _TOLD.items() if isinstance(told, kind)), None)
        if text is None:
            raise
        what, advice = f"({type(told).__name__}) {told}", "Try again later."
        response = getattr(told, "response", None)
        if isinstance(told, errors.HfHubHTTPError) and response is not None:
            what = f"{response.status_code} ({told.server_message or response.reason_phrase})"
            if response.status_code == 412:
                advice = "Somebody else moved the branch, nothing was overwritten: push again."
            elif not _may_pass(told):
                advice = f"If it refuses access, {LOG_IN}, with a token that may do this."
        said = text.format(
            hub=constants.ENDPOINT,
            name=name,
            revision=revision or "its default branch",
            error=" ".join(what.split()),
            advice=advice,
        )
        raise (OSError if _may_pass(told) else InputError)(said) from error


def _may_pass(error: Exception) -> bool:
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, errors.HTTPError | errors.FileMetadataError | JSONDecodeError)
