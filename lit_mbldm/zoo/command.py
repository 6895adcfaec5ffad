"""A command line as others may see it."""

import os
import re
import shlex
from collections.abc import Sequence

from lit_mbldm.storage.urls import public

_WORD = r"[\w.-]*(?:token|secret|password|api_?key|credential)\w*"
_SECRET_OPTION = re.compile(f"--{_WORD}", re.IGNORECASE)
_NAMED_SECRET = re.compile(rf"(--{_WORD}|\b\w*{_WORD})=.*", re.IGNORECASE)
_SECRET = re.compile(r"\bhf_\w{8,}|(?<=Bearer )\S+")
_LOCAL_URL = re.compile(r"\bfile:/+", re.IGNORECASE)
_URL = re.compile(r"[a-z][\w+.-]*://[^\s,\"']+", re.IGNORECASE)
_ABSOLUTE = re.compile(r"(?<![\w./:~-])(?:~|/)[^\s,\"'=:]*")


def shareable_command(program: str, argv: Sequence[str]) -> str:
    """Write down a command without secrets of URLs and without the folders of this machine.

    Args:
        program: its name.
        argv: its arguments.
    """
    shown = [
        "…" if _SECRET_OPTION.fullmatch(before) else _shareable(argument)
        for before, argument in zip(["", *argv], argv, strict=False)
    ]
    return shlex.join([program, *shown])


def _shareable(argument: str) -> str:
    argument = _NAMED_SECRET.sub(r"\1=…", argument)
    argument = _SECRET.sub("…", argument)
    argument = _LOCAL_URL.sub("/", argument)
    argument = _URL.sub(lambda match: public(match[0]), argument)
    return _ABSOLUTE.sub(lambda match: os.path.basename(match[0].rstrip("/")), argument)
