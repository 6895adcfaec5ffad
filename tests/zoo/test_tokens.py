"""Errors tell what is wrong with a login, and nothing of the login."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from entries import REPO
from loopback_http import Response
from loopback_hub import Hub

from lit_mbldm.entries.fetch import pull
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained, push_pretrained

PAGE = Response(200, b"<html>Log in to the wireless network</html>")
Break = Callable[[Hub], object]
ERRORS: dict[str, tuple[str, Break, str]] = {
    "no repository": ("org/none", lambda hub: None, "has no repository org/none"),
    "no revision": (f"{REPO}@none", lambda hub: None, "has no revision none"),
    "no commit": (f"{REPO}@{'0' * 40}", lambda hub: None, f"no revision {'0' * 40}"),
    "no name": ("org/-bad-", lambda hub: None, "does not take org/-bad-"),
    "no entry": (
        "org/empty",
        lambda hub: hub.add_repo("org/empty"),
        "its default branch is no entry",
    ),
    "gated": (
        REPO,
        lambda hub: hub.faults.status("HEAD ", 403, times=None, X_Error_Code="GatedRepo"),
        "asks for consent",
    ),
    "unreachable": (REPO, lambda hub: hub.faults.drop_before(".", times=None), "cannot be reached"),
    "a moved branch": (
        REPO,
        lambda hub: hub.faults.hook("POST .*/commit/", lambda: hub.commit(REPO, {"a.txt": b"a"})),
        "Somebody else moved",
    ),
    "no Hub": (
        REPO,
        lambda hub: hub.faults.add(".", lambda _: PAGE, times=None),
        "does not answer as the Hub does",
    ),
    "damage": (REPO, lambda hub: hub.faults.corrupt("GET .*/objects/"), "is damaged"),
    "an unknown token": (REPO, lambda hub: hub.tokens.clear(), "hf auth login"),
    "a token with the words around it": (
        REPO,
        lambda hub: os.environ.update(HF_TOKEN=f"{hub.token}Ü"),
        "login's token has odd characters",
    ),
}


def answer_always(status: int) -> Break:
    return lambda hub: hub.faults.status(".", status, times=None)


for code, told in [(401, "refuses access"), (403, "refuses access"), (404, "answers 404"),
                   (412, "answers 412"), (429, "answers 429"), (500, "answers 500")]:  # fmt: skip
    ERRORS[str(code)] = (REPO, answer_always(code), told)


@pytest.mark.parametrize("kind", ERRORS)
def test_no_error_tells_the_token(
    hub: Hub,
    folders: dict[str, Path],
    hasty: list[float],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    caplog.set_level("DEBUG")
    name, break_, words = ERRORS[kind]
    push_pretrained(folders["categorical"], REPO, private=True)
    break_(hub)
    texts = []
    for ask in (
        lambda: load_pretrained(name),
        lambda: pull(name),
        lambda: push_pretrained(folders["continuous"], REPO),
        lambda: push_pretrained(folders["continuous"], REPO, revision="trial"),
    ):
        try:
            ask()
        except (InputError, OSError) as error:
            texts.append("".join(traceback.format_exception(error)))
    assert words in "".join(texts)
    assert hub.token.removeprefix("hf_") not in "".join(texts) + caplog.text
