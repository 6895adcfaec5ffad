"""Whether what lit-mbldm needs is installed, and whose commands the shell runs."""

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from lit_mbldm.doctor.report import INSTALL, Finding

_NAME = "lit-mbldm"


def examine_versions() -> Iterator[Finding]:
    """Python, this package, and what it requires."""
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})")
    own = _version(_NAME)
    yield Finding(_NAME, own or "runs from its source folder; `pip install -e .` there installs it")
    if not own:
        return
    from packaging.requirements import Requirement

    for need in map(Requirement, metadata.requires(_NAME) or []):
        name, version = need.name, _version(need.name)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            if not version and need.marker.evaluate({"extra": "eval"}):
                told = "FID and the other scores need `pip install 'lit-mbldm[eval]'`."
                yield Finding("Note", told)
        elif not version:
            problem = f"{name} is not installed, and {_NAME} needs it."
            yield Finding(name, "not installed", problem, INSTALL)
        elif need.specifier.contains(version, prereleases=True):
            yield Finding(name, version)
        else:
            problem = f"{name} {version} is installed, but {_NAME} needs {need.specifier}."
            yield Finding(name, version, problem, f"`pip install '{name}{need.specifier}'`")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


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


def _command(name: str) -> Finding:
    """What a command on the path imports, and by which environment's Python."""
    title, path = f"{name} runs", shutil.which(name)
    ours = f"`{sys.executable} -m lit_mbldm`"
    if path is None:
        return Finding(title, f"nothing: not on the path; {ours} does")
    text = Path(path).read_bytes()[:10_000].decode(errors="replace")
    imported = re.search(r"^\s*from\s+([\w.]+)\s+import\s", text, re.MULTILINE)
    # behind a long path, the first line is a shell's and the second names the Python
    python = re.match(r"#!(?:/bin/sh\n'''exec' \"?)?(/\S*python[\d.]*)", text)
    if imported is None or python is None:
        return Finding(title, f"{path} (a wrapper that cannot be examined)")
    value = f"{path} (runs {imported[1]} by {python[1]})"
    if imported[1].partition(".")[0] != "lit_mbldm":
        problem = f"`{name}` is another program's: {path} runs {imported[1]}, not lit_mbldm."
        own = f"or own the name again: `pip install --force-reinstall --no-deps {_NAME}`"
        return Finding(title, value, problem, f"Run {ours} instead, {own}.")
    if Path(python[1]).parent.resolve() != Path(sys.executable).parent.resolve():
        problem = f"`{name}` on the path is another environment's, run by {python[1]}."
        return Finding(title, value, problem, f"Activate the one you mean, or run {ours}.")
    return Finding(title, value)
