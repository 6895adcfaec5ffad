"""The report: findings part by part as they come, then what is wrong and what to do."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

INSTALL = (
    "Install lit-mbldm with all that it needs: `pip install lit-mbldm`, or `pip install -e .` in"
    " its source folder."
)


@dataclass(frozen=True)
class Finding:
    """A fact by its name ("Note" for a consequence), and what is wrong with it and helps, if so."""

    name: str
    value: str
    problem: str = ""
    remedy: str = ""


Examine = Callable[[], Iterator[Finding]]


def print_report(parts: Mapping[str, Examine]) -> int:
    """Print the findings under the parts' titles; returns 1 where something is wrong, else 0."""
    wrong = []
    for title, examine in parts.items():
        print(title, flush=True)  # before the work, which may take long
        for finding in _examined(title, examine):
            mark = "!" if finding.problem else " "
            print(_wrapped(finding.value, f"{mark} {finding.name:<20} "), flush=True)
            wrong += [finding] if finding.problem else []
        print()
    print("What is wrong" if wrong else "Nothing is wrong.")
    for number, finding in enumerate(wrong, 1):
        print(_wrapped(finding.problem, f"{number:>3}. "))
        print(_wrapped(finding.remedy, "     Remedy: "))
    return 1 if wrong else 0


def _examined(title: str, examine: Examine) -> Iterator[Finding]:
    try:
        yield from examine()
    except Exception as error:  # a broken installation raises nearly anything
        problem = f"{title} cannot be examined: {type(error).__name__}: {error}."
        yield Finding(title, "cannot be examined", problem, INSTALL)


def _wrapped(text: str, start: str) -> str:
    # a path or a command must stay in one piece to be copied
    whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\0"), text)
    wrapper = textwrap.TextWrapper(100, start, " " * len(start))
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.fill(whole).replace("\0", " ")
