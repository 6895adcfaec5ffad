"""Whether what lit-mbldm needs is installed, and whose commands the shell runs."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mbldm.doctor.report import INSTALL, Finding

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_NAME = "lit-mbldm"
_REINSTALL = f"`pip install --force-reinstall --no-deps {_NAME}`"


def examine_versions() -> Iterator[Finding]:
    """Python, this package, and what it requires."""
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})")
    own = _version(_NAME)
    yield Finding(_NAME, own or "runs from its source folder; `pip install -e .` there installs it")
    if own is None:
        return
    from packaging.requirements import Requirement

    for need in map(Requirement, metadata.requires(_NAME) or []):
        name, version = need.name, _version(need.name)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield _fits(name, version, need.specifier)
        elif version is None and need.marker.evaluate({"extra": "eval"}):
            yield Finding("Note", "FID and the other scores need `pip install 'lit-mbldm[eval]'`.")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(name: str, version: str | None, specifier: "SpecifierSet") -> Finding:
    if version is None:
        problem = f"{name} is not installed, and {_NAME} needs it."
        return Finding(name, "not installed", problem, INSTALL)
    if specifier.contains(version, prereleases=True):
        return Finding(name, version)
    problem = f"{name} {version} is installed, but {_NAME} needs {specifier}."
    return Finding(name, version, problem, f"`pip install '{name}{specifier}'`")


def examine_commands() -> Iterator[Finding]:
    """Which distributions declare `lightning`, a name that several use, and what runs by it."""
    owners = {
        f"{distribution.name} {distribution.version}"
        for distribution in metadata.distributions()
        if distribution.entry_points.select(group="console_scripts", name="lightning")
    }
    yield Finding("lightning belongs to", ", ".join(sorted(owners)) or "no installed package")
    yield _command("lightning")
    yield _command(_NAME)
    if any(owner.startswith("lightning-sdk ") for owner in owners):
        told = "Verbs of lightning-sdk that are not ours, such as `login`, are passed on to it."
        yield Finding("Note", told)


def _command(name: str) -> Finding:
    """What a command on the path imports, and by which environment's Python."""
    title, path = f"{name} runs", shutil.which(name)
    if path is None:
        return Finding(title, f"nothing: not on the path; `{sys.executable} -m lit_mbldm` does")
    text = Path(path).read_bytes()[:10_000].decode(errors="replace")
    imported = re.search(r"^\s*from\s+([\w.]+)\s+import\s", text, re.MULTILINE)
    # behind a long path, the first line is a shell's and the second names the Python
    python = re.match(r"#!(?:/bin/sh\n'''exec' \"?)?(/\S*python[\d.]*)", text)
    if imported is None or python is None:
        return Finding(title, f"{path} (a wrapper that cannot be examined)")
    value = f"{path} (runs {imported[1]} by {python[1]})"
    if imported[1].partition(".")[0] != "lit_mbldm":
        problem = f"`{name}` is another program's: {path} runs {imported[1]}, not lit_mbldm."
        remedy = f"Run `python -m lit_mbldm` instead, or own the name again: {_REINSTALL}."
        return Finding(title, value, problem, remedy)
    if Path(os.path.dirname(python[1])).resolve() == Path(sys.executable).parent.resolve():
        return Finding(title, value)
    problem = (
        f"`{name}` on the path is another environment's, run by {python[1]}; this report is of"
        f" {sys.executable}."
    )
    remedy = f"Activate the environment you mean, or run `{sys.executable} -m lit_mbldm`."
    return Finding(title, value, problem, remedy)
