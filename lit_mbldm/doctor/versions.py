"""Which versions are installed, and whether they fit this package and each other."""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lit_mbldm.doctor.missing import not_installed
from lit_mbldm.doctor.section import Problem, Section

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_NAME = "lit-mbldm"
_FOR_USERS = "eval"  # the other extras are for who works on this package


def examine_versions() -> Section:
    """Python, this package, what it requires, and its extras."""
    section = Section()
    try:
        metadata = importlib.metadata.metadata(_NAME)
    except importlib.metadata.PackageNotFoundError:
        section.row("Python", _python())
        section.row(_NAME, "not installed")
        section.notes.append(
            "lit_mbldm runs from its source folder, so its requirements are unknown here; in that"
            " folder, `pip install -e .` makes them known."
        )
        return section
    if importlib.util.find_spec("packaging") is None:
        section.row("Python", _python())
        section.row(_NAME, metadata["Version"])
        section.row("packaging", "not installed", not_installed("packaging"))
        section.notes.append("Without packaging, no versions can be compared with what is needed.")
        return section
    section.row("Python", _python(), _python_misfit(metadata["Requires-Python"] or ""))
    section.row(_NAME, metadata["Version"])
    required = _merged(_required(_NAME))
    for name, needs in required.items():
        _distribution(section, name, needs)
    _extras(section, metadata.get_all("Provides-Extra") or [])
    return section


def _python() -> str:
    return f"{platform.python_version()} ({sys.executable})"


def _python_misfit(specifier: str) -> Problem | None:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(specifier).contains(platform.python_version(), prereleases=True):
        return None
    what = f"Python {platform.python_version()} is too old or new: {_NAME} needs {specifier}."
    return Problem(what, f"Install {_NAME} in an environment of a Python {specifier}.")


def _required(name: str, extra: str = "") -> Iterator[tuple[str, "Requirement"]]:
    """What a distribution, or only one extra of it, requires here, each with who requires it.

    Where extras are required, so is what these require.
    """
    for requirement in _requirements(name):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if extra and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        yield name, requirement
        for inner in sorted(requirement.extras):
            yield from _required(requirement.name, inner)


def _requirements(name: str) -> list["Requirement"]:
    from packaging.requirements import Requirement

    try:
        return [Requirement(text) for text in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def _merged(
    requirements: Iterator[tuple[str, "Requirement"]],
) -> dict[str, list[tuple[str, "Requirement"]]]:
    """All that is required of each distribution, also by other required distributions."""
    from packaging.utils import canonicalize_name

    merged: dict[str, list[tuple[str, Requirement]]] = {}
    for dependent, requirement in requirements:
        merged.setdefault(canonicalize_name(requirement.name), []).append((dependent, requirement))
    for name in list(merged):
        for requirement in _requirements(name):
            needed = canonicalize_name(requirement.name)
            marker = requirement.marker
            if needed in merged and (marker is None or marker.evaluate({"extra": ""})):
                merged[needed].append((name, requirement))
    return merged


def _distribution(section: Section, name: str, needs: list[tuple[str, "Requirement"]]) -> None:
    own = ",".join(str(requirement.specifier) for _, requirement in needs[:1])
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        section.row(name, "not installed", not_installed(name, needs[0][0], own))
        return
    unmet = [
        (dependent, str(requirement.specifier))
        for dependent, requirement in needs
        if not requirement.specifier.contains(version, prereleases=True)
    ]
    told = f"{version:<16} needs {own or 'any version'}"
    for dependent, specifier in unmet:
        if dependent != needs[0][0]:
            told += f"; {dependent} needs {specifier}"
    section.row(name, told, _mismatch(name, version, unmet) if unmet else None)


def _mismatch(name: str, version: str, unmet: list[tuple[str, str]]) -> Problem:
    wanted = " and ".join(f"{dependent} needs {specifier}" for dependent, specifier in unmet)
    dependents = {dependent for dependent, _ in unmet} - {_NAME}
    remedy = f"`pip install '{name}{','.join(specifier for _, specifier in unmet)}'`"
    if dependents:
        both = " ".join(sorted({name, *dependents}))
        remedy += f", or bring both up to date: `pip install --upgrade {both}`"
    return Problem(f"{name} {version} is installed, but {wanted}.", f"{remedy}.")


def _extras(section: Section, extras: list[str]) -> None:
    for extra in extras:
        if all(_satisfied(requirement) for _, requirement in _required(_NAME, extra)):
            section.row(f"{_NAME}[{extra}]", "installed")
        elif extra == _FOR_USERS:
            told = f"optional, incomplete: `pip install '{_NAME}[{extra}]'`"
            section.row(f"{_NAME}[{extra}]", told)


def _satisfied(requirement: "Requirement") -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)
