"""A part of the report, and how it looks as text."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

_WIDTH = 100
_NAME_WIDTH = 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, in plain words, and what to do about it.

    Attributes:
        what: the fault.
        remedy: what to do.
        missing: the distribution whose absence it is, empty where it is another fault.
    """

    what: str
    remedy: str
    missing: str = ""


@dataclass
class Section:
    """Facts that stand under one heading.

    Attributes:
        rows: name, value, and whether it is wrong.
        notes: things that are no fault but have a consequence, which they tell.
        problems: what is wrong.
    """

    rows: list[tuple[str, str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def row(self, name: str, value: str, problem: Problem | None = None) -> None:
        """Add a fact, and what is wrong with it."""
        self.rows.append((name, value, problem is not None))
        if problem is not None:
            self.problems.append(problem)

    def text(self) -> str:
        """What is printed under the heading; a wrong row begins with an exclamation mark."""
        lines = []
        for name, value, wrong in self.rows:
            start = f"{'! ' if wrong else '  '}{name:<{_NAME_WIDTH}} "
            lines.append(_wrapped(value, start))
        lines.extend(_wrapped(note, "  Note: ") for note in self.notes)
        return "\n".join(lines) + "\n"


def verdict(problems: Sequence[Problem]) -> str:
    """The end of the report: each problem with its remedy, or that there is none."""
    if not problems:
        return "Nothing is wrong."
    lines = ["What is wrong"]
    for number, problem in enumerate(problems, 1):
        start = f"{number:>3}. "
        lines.append(_wrapped(problem.what, start))
        lines.append(_wrapped(problem.remedy, " " * len(start) + "Remedy: "))
    return "\n".join(lines)


def gigabytes(number: float) -> str:
    """A number of bytes for people, in MB below 1 GB (10⁹ bytes)."""
    if number < 1e9:
        return f"{number / 1e6:.1f} MB"
    return f"{number / 1e9:.1f} GB" if number < 1e11 else f"{number / 1e9:.0f} GB"


def _wrapped(text: str, start: str) -> str:
    # a path or a command must stay in one piece to be copied
    whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\0"), text)
    filled = textwrap.fill(
        whole,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\0", " ")
