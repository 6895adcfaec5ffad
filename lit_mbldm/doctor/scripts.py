"""Who owns the script `lightning`, whose name several packages use."""

import importlib.metadata
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lit_mbldm.doctor.section import Problem, Section

_INSTEAD = "`lit-mbldm` or `python -m lit_mbldm`"
_REINSTALL = "`pip install --force-reinstall --no-deps lit-mbldm`"
_LARGEST = 1_000_000  # bytes; a script that pip writes has a few hundred


@dataclass(frozen=True)
class Script:
    """A command on the path.

    Attributes:
        path: the file.
        module: what it imports and runs, None where it is no Python script.
        folder: of the interpreter that runs it.
    """

    path: Path
    module: str | None
    folder: Path

    @property
    def ours(self) -> bool:
        """Whether it runs this package, of whichever environment."""
        return self.module is not None and self.module.split(".")[0] == "lit_mbldm"

    @property
    def here(self) -> bool:
        """Whether it belongs to this environment."""
        return self.folder.resolve() == Path(sys.executable).parent.resolve()


def examine_scripts() -> Section:
    """Which distributions declare `lightning`, and what the commands on the path are."""
    section = Section("Commands")
    owners = _owners("lightning")
    section.row("lightning belongs to", ", ".join(owners) or "no installed package")
    _lightning(section, _find("lightning"), owners)
    _lit_mbldm(section, _find("lit-mbldm"))
    if any(owner.startswith("lightning-sdk ") for owner in owners):
        section.notes.append(
            "Verbs that are lightning-sdk's and not ours, such as `login`, are passed on to it."
        )
    return section


def _owners(name: str) -> list[str]:
    """The distributions that declare a console script of this name."""
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.entry_points.select(group="console_scripts", name=name):
            key = canonicalize_name(distribution.metadata["Name"])
            found.setdefault(key, f"{key} {distribution.version}")  # the first is imported
    return sorted(found.values())


def _find(name: str) -> Script | None:
    path = shutil.which(name)
    return None if path is None else _read(Path(path))


def _read(path: Path) -> Script:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        text = ""
    imported = re.search(r"^\s*from\s+([\w.]+)\s+import\s", text, re.MULTILINE)
    return Script(path, imported[1] if imported else None, _interpreter(text, path).parent)


def _interpreter(text: str, path: Path) -> Path:
    # behind a long path the first line is a shell's, and the second hands over to Python
    started = re.match(r"#!(.*)\n(?:'''exec' \"?([^\"$\s]+)\"? \"\$0\")?", text)
    if started is None:
        return path.resolve()
    words = (started[2] or started[1]).split()
    if len(words) > 1 and words[0].endswith("/env"):
        return Path(shutil.which(words[1]) or words[1])
    return Path(words[0]) if words and "python" in words[0] else path.resolve()


def _told(script: Script) -> str:
    runs = f"runs {script.module}" if script.module else "no Python script"
    return f"{script.path} ({runs}{'' if script.here else ', of another environment'})"


def _lightning(section: Section, script: Script | None, owners: list[str]) -> None:
    if script is None:
        section.row("lightning runs", "nothing: not on the path")
        return
    problem = None
    if not script.ours:
        what = (
            f"`lightning` is another program's: {script.path} runs"
            f" {script.module or 'something else'}, so `lightning fit` does not train our models."
        )
        remedy = f"Run {_INSTEAD} instead, which know every verb."
        if script.here and any(owner.startswith("lit-mbldm ") for owner in owners):
            remedy += f" Or install lit-mbldm once more, to own the name again: {_REINSTALL}."
        problem = Problem(what, remedy)
    elif not script.here:
        problem = _elsewhere("lightning", script)
    section.row("lightning runs", _told(script), problem)


def _lit_mbldm(section: Section, script: Script | None) -> None:
    if script is not None:
        problem = None
        if not script.ours:
            what = f"`lit-mbldm` is another program's: {script.path}."
            problem = Problem(what, f"Run `python -m lit_mbldm`, or install it anew: {_REINSTALL}.")
        elif not script.here:
            problem = _elsewhere("lit-mbldm", script)
        section.row("lit-mbldm runs", _told(script), problem)
        return
    section.row("lit-mbldm runs", "nothing: not on the path")
    there = Path(sys.executable).parent / "lit-mbldm"
    command = there if os.access(there, os.X_OK) else f"{sys.executable} -m lit_mbldm"
    section.notes.append(
        f"This environment's commands are not on the path. Activate it, or run `{command}`."
    )


def _elsewhere(name: str, script: Script) -> Problem:
    return Problem(
        f"`{name}` on the path is another environment's, run by the Python in {script.folder};"
        f" this report is of {sys.executable}.",
        f"Activate the environment you mean, or run `{sys.executable} -m lit_mbldm`.",
    )
