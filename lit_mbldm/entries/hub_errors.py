"""What goes wrong with the Hub, in plain words and without secrets."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from json import JSONDecodeError

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
PAUSES = (1.0, 4.0, None)  # seconds to wait after what failed each time, and then no more


@contextmanager
def hub_errors_explained(repository: str, revision: str | None = None) -> Iterator[None]:
    """Raise what the Hub's client raises in words that say what to do.

    Raises:
        InputError: it will fail again: not there, no access, or not in the cache while offline.
        OSError: the Hub or the network fails; it may pass.
    """
    try:
        yield
    except (HTTPError, OSError, EntryNotFoundError, RuntimeError, ValueError) as error:
        explained = _explain(error, repository, revision or "its default branch")
        if explained is None:
            raise
        # what cannot be written as text may be the token
        raise explained from (None if isinstance(error, UnicodeError) else error)


def may_pass(error: Exception) -> bool:
    """Whether what failed may succeed a moment later; the client tries uploads again itself."""
    if not isinstance(error, HfHubHTTPError):
        return isinstance(error, HTTPError)
    status = error.response.status_code
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _explain(error: Exception, repository: str, revision: str) -> Exception | None:
    hub = constants.ENDPOINT
    match error:
        case GatedRepoError():
            text = f"{repository} asks for consent: give it on {hub}/{repository}, and {LOG_IN}."
            return InputError(text)
        case RepositoryNotFoundError():
            return InputError(
                f"{hub} has no repository {repository}, or it is private: check the name, and"
                f" {LOG_IN}. There is no local file or folder of that name either."
            )
        case RevisionNotFoundError():
            return InputError(
                f"{repository} has no revision {revision}: name a branch, tag or commit of"
                f" {hub}/{repository}."
            )
        case LocalEntryNotFoundError():
            cause = error.__cause__
            if isinstance(cause, HTTPError | OSError):
                return _explain(cause, repository, revision) or _unreachable(cause)
            return _not_cached(repository, revision)
        case OfflineModeIsEnabled():
            return InputError("This needs the network, but HF_HUB_OFFLINE is set: unset it.")
        case EntryNotFoundError():
            text = f"{repository} at {revision} lacks a file of its entry: {_last(error)}."
            return InputError(text)
        case HFValidationError():
            return InputError(f"{repository} is no name of a repository: {error}")
        case FileMetadataError() | JSONDecodeError():
            return OSError(f"{hub} does not answer as the Hub does: {error}")
        case UnicodeError():
            return InputError(f"The login's token is none: it holds odd characters. {LOG_IN}.")
        case HfHubHTTPError():
            return _answered(error, repository)
        case HTTPError():
            return _unreachable(error)
        case PermissionError() if error.filename:
            return OSError(
                f"{error.filename} cannot be written ({error.strerror}). Use a cache of your own"
                " (HF_HOME, cache_dir), or load what is there with HF_HUB_OFFLINE=1."
            )
        case RuntimeError() if isinstance(error.__cause__, HTTPError):  # in an upload
            return _explain(error.__cause__, repository, revision)
        case ValueError() if isinstance(error.__cause__, BadRequestError):
            return InputError(f"The Hub does not take the model's card: {error}")
    return None


def _answered(error: HfHubHTTPError, repository: str) -> Exception:
    status = error.response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return InputError(
            f"The Hub refuses access to {repository} ({status}): {LOG_IN}, with a token that may"
            " do this."
        )
    reason = f"{constants.ENDPOINT} answers {status} for {repository}"
    if may_pass(error):
        return OSError(f"{reason}. Try again later.")
    return InputError(f"{reason}: {error.server_message or error.response.reason_phrase}.")


def _unreachable(error: Exception) -> OSError:
    return OSError(
        f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {error}). Check the"
        " connection, or load from the cache with HF_HUB_OFFLINE=1."
    )


def _not_cached(repository: str, revision: str) -> InputError:
    return InputError(
        f"{repository} at {revision} is not in the Hub's cache, and the network is not used. Load"
        f" it once with it, such as by `lit-mbldm pull {repository}`. There is no local file or"
        " folder of that name either."
    )


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].rstrip(".")
