"""Whether the Hub can be reached, and as whom. A token is shown nowhere, in no part."""

import os
import threading
from dataclasses import dataclass

from lit_mbldm.doctor.section import Problem, Section
from lit_mbldm.storage.urls import is_http, public

_LIMIT = 5.0  # seconds
_OFFLINE = (
    "Shipped entries, local folders and what the cache holds still load; nothing else can be"
    " pulled, and nothing pushed."
)


@dataclass
class _Answer:
    """What became of the request.

    Attributes:
        reached: whether the Hub answered as it should.
        why: what kept it from answering.
        token: whether there is one.
        fault: what is wrong with the token, empty where nothing is.
        user: whose token it is, None where that is unknown.
        may_write: whether the token may push.
    """

    reached: bool = False
    why: str = f"no answer within {_LIMIT:g} seconds"
    token: bool = False
    fault: str = ""
    user: str | None = None
    may_write: bool = True


def examine_hub() -> Section:
    """Endpoint, offline mode, reachability and login."""
    from huggingface_hub import constants

    section = Section()
    if not is_http(constants.ENDPOINT):
        what = "HF_ENDPOINT is no URL: expected https:// and a host."
        section.row("Endpoint", "no URL", Problem(what, "Correct or unset HF_ENDPOINT."))
        return section
    section.row("Endpoint", public(constants.ENDPOINT))
    source = _token_source()
    if constants.HF_HUB_OFFLINE:
        section.row("Reachable", "not asked: offline mode (HF_HUB_OFFLINE)")
        section.row("Login", f"not asked; token from {source}" if source else "no token")
        section.notes.append(f"Offline mode is on. {_OFFLINE}")
        return section
    answer = _ask()
    section.row("Reachable", "yes" if answer.reached else f"no: {answer.why}")
    if not answer.reached:
        section.notes.append(
            f"The Hub cannot be used now. {_OFFLINE} Behind a proxy, set HTTPS_PROXY; to load from"
            " the cache without waiting, HF_HUB_OFFLINE=1."
        )
    _login(section, answer, source)
    return section


def _token_source() -> str:
    """Where huggingface_hub finds a token, by its order; empty where there is none."""
    from huggingface_hub import constants

    for name in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return f"the variable {name}"
    path = constants.HF_TOKEN_PATH
    return f"the file {path}" if os.path.isfile(path) else ""


def _login(section: Section, answer: _Answer, source: str) -> None:
    source = source or ("the notebook's secrets" if answer.token else "its file")
    if answer.fault:
        what = f"The token from {source} is of no use: {answer.fault}."
        remedy = "Make a new one in the Hub's settings, then `hf auth login`"
        if "variable" in source:
            remedy += f", and unset {source.split()[-1]}, which goes before that login"
        section.row("Login", f"token from {source} is of no use", Problem(what, f"{remedy}."))
    elif answer.user is not None:
        section.row("Login", f"{answer.user} (token from {source})")
        if not answer.may_write:
            section.notes.append(
                "This token may only read; `lit-mbldm push` needs one that may write."
            )
    elif answer.token:
        section.row("Login", f"unknown; token from {source}")
    else:
        section.row("Login", "nobody")
        section.notes.append(
            "Nobody is logged in: public models can be pulled; private ones and `lit-mbldm push`"
            " need `hf auth login`."
        )


def _ask() -> _Answer:
    """Ask in a thread: neither a name server nor a server that dawdles heeds a timeout."""
    answers: list[_Answer] = []
    thread = threading.Thread(target=lambda: answers.append(_asked()), daemon=True)
    thread.start()
    thread.join(_LIMIT)
    return answers[0] if answers else _Answer(token=bool(_token_source()))


def _asked() -> _Answer:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    answer = _Answer()
    token = _token(answer)
    try:
        if token is None:
            url = f"{constants.ENDPOINT}/api/models"
            response = get_session().get(url, params={"limit": 1})
            hf_raise_for_status(response)
            response.json()
        else:
            identity = HfApi().whoami(token=token)
            answer.user = str(identity["name"])
            role = identity.get("auth", {}).get("accessToken", {}).get("role")
            answer.may_write = role != "read"
        answer.reached = True
    except HfHubHTTPError as error:
        status = error.response.status_code
        answer.why = f"it answers with status {status}"
        if token is not None and status == 401:
            answer.reached, answer.fault = True, "the Hub refuses it as invalid or expired"
    except (ValueError, LookupError, TypeError, AttributeError):
        answer.why = "what answers there is no Hub"
    except Exception as error:  # its text may quote the request's headers, and so the token
        answer.why = _reason(error)
    return answer


def _token(answer: _Answer) -> str | None:
    """A token that can be sent; what is wrong with it, if it cannot, goes to the answer."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:  # its text may quote the token
        answer.fault = f"it cannot be had ({_reason(error)})"
        return None
    answer.token = token is not None
    if token is not None and not (token.isascii() and token.isprintable()):
        answer.fault = "it holds characters that no token has"
        return None
    return token


def _reason(error: BaseException) -> str:
    """The kind of an error, with the system's words where it came from the system."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{type(error).__name__}, {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
