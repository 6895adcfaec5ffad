"""A command line as others may see it."""

import os
import re
import shlex
from collections.abc import Sequence

from lit_mbldm.storage.urls import public

_LOCAL_URL = re.compile(r"\bfile:/+", re.IGNORECASE)
_URL = re.compile(r"[a-z][\w+.-]*://[^\s,\"']+", re.IGNORECASE)
_ABSOLUTE = re.compile(r"(?<![\w./:~-])(?:~|/)[^\s,\"'=:]*")


def shareable_command(program: str, argv: Sequence[str]) -> str:
    """Write down a command without secrets of URLs and without the folders of this machine.

    Args:
        program: its name.
        argv: its arguments.
    """
    return shlex.join([program, *map(_shareable, argv)])


def _shareable(argument: str) -> str:
    argument = _LOCAL_URL.sub("/", argument)
    argument = _URL.sub(lambda match: public(match[0]), argument)
    return _ABSOLUTE.sub(lambda match: os.path.basename(match[0].rstrip("/")), argument)
