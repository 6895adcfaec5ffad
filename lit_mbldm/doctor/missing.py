"""Packages that are not installed: told once, however many parts of the report miss them."""

import re
from collections.abc import Sequence

from lit_mbldm.doctor.section import Problem

_MANY = 3  # from so many on, one remedy for all
_DISTRIBUTIONS = {"PIL": "pillow", "faiss": "faiss-cpu", "yaml": "pyyaml"}  # of modules
_ALL = (
    "Install lit-mbldm with all that it needs: `pip install lit-mbldm`, or `pip install -e .` in"
    " its source folder."
)


def canonical(name: str) -> str:
    """A distribution's normalized name, without `packaging`, which may be what is missing."""
    return re.sub(r"[-_.]+", "-", name).lower()


def not_installed(name: str, dependent: str = "lit-mbldm", specifier: str = "") -> Problem:
    """The problem that a distribution is missing which another one needs."""
    what = f"{name} is not installed, and {dependent} needs it."
    return Problem(what, f"`pip install '{name}{specifier}'`", missing=name)


def named_in(error: str) -> Problem | None:
    """The problem behind an error's text, None where it tells of no missing module."""
    found = re.search(r"No module named '(\w+)'", error)
    if found is None or found[1] == "lit_mbldm":
        return None
    # no remedy for it alone: another distribution may have this name
    what = f"Python's module {found[1]} is missing, and lit-mbldm needs it."
    return Problem(what, _ALL, missing=_DISTRIBUTIONS.get(found[1], canonical(found[1])))


def merged(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with each missing package once, and with one remedy where many are missing."""
    absent: dict[str, Problem] = {}
    for problem in problems:
        if problem.missing:
            absent.setdefault(problem.missing, problem)
    others = [problem for problem in problems if not problem.missing]
    if len(absent) < _MANY:
        return [*absent.values(), *others]
    what = f"{len(absent)} packages that lit-mbldm needs are not installed: {', '.join(absent)}."
    return [Problem(what, _ALL), *others]
