"""Who owns the script `lightning`, whose name several packages use."""

import importlib.metadata
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lit_mbldm.doctor.missing import canonical
from lit_mbldm.doctor.section import Problem, Section

_REINSTALL = "`pip install --force-reinstall --no-deps lit-mbldm`"
_LARGEST = 1_000_000  # bytes; a script that pip writes has a few hundred


@dataclass(frozen=True)
class Script:
    """A command on the path.

    Attributes:
        path: the file.
        module: what it imports and runs, None where that is not to be seen.
        python: the interpreter that runs it: a path; its bare name where it is looked for on the
            path and not found there; None where another program runs the script.
    """

    path: Path
    module: str | None
    python: Path | None

    @property
    def ours(self) -> bool:
        """Whether it runs this package, of whichever environment."""
        return self.module is not None and self.module.split(".")[0] == "lit_mbldm"

    @property
    def here(self) -> bool:
        """Whether it belongs to this environment."""
        folder = Path(sys.executable).parent.resolve()
        return self.python is not None and self.python.parent.resolve() == folder

    @property
    def cannot_start(self) -> bool:
        """Whether there is no interpreter to run it."""
        return self.python is not None and not self.python.is_absolute()


def examine_scripts() -> Section:
    """Which distributions declare `lightning`, and what the commands on the path are."""
    section = Section()
    owners = _owners("lightning")
    section.row("lightning belongs to", ", ".join(owners) or "no installed package")
    own = _find("lit-mbldm")
    _lightning(section, _find("lightning"), owners, own)
    _lit_mbldm(section, own)
    if any(owner.startswith("lightning-sdk ") for owner in owners):
        section.notes.append(
            "Verbs that are lightning-sdk's and not ours, such as `login`, are passed on to it."
        )
    return section


def _owners(name: str) -> list[str]:
    """The distributions that declare a console script of this name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.entry_points.select(group="console_scripts", name=name):
            key = canonical(distribution.metadata["Name"])
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
    return Script(path, imported[1] if imported else None, _interpreter(text))


def _interpreter(text: str) -> Path | None:
    # behind a long path the first line is a shell's, and the second hands over to Python
    started = re.match(r"#!(.*)\n(?:'''exec' \"?([^\"$\s]+)\"? \"\$0\")?", text)
    words = (started[2] or started[1]).split() if started else []
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        found = shutil.which(words[0]) if words else None
        words = [os.path.abspath(found)] if found else words
    return Path(words[0]) if words and "python" in Path(words[0]).name else None


def _told(script: Script) -> str:
    if script.python is None:
        return f"{script.path} (a wrapper that cannot be examined)"
    runs = f"runs {script.module}" if script.module else "runs something else"
    if script.cannot_start:
        return f"{script.path} ({runs}, by a {script.python} that is not on the path)"
    return f"{script.path} ({runs}{'' if script.here else ', of another environment'})"


def _lightning(
    section: Section, script: Script | None, owners: list[str], own: Script | None
) -> None:
    if script is None:
        section.row("lightning runs", "nothing: not on the path")
        return
    problem = _misplaced(section, "lightning", script)
    if script.python is not None and not script.ours:
        what = (
            f"`lightning` is another program's: {script.path} runs"
            f" {script.module or 'something else'}, so `lightning fit` does not train our models."
        )
        instead = "`lit-mbldm` or " if own is not None and own.ours and own.here else ""
        remedy = f"Run {instead}`python -m lit_mbldm` instead, for every verb."
        if script.here and any(owner.startswith("lit-mbldm ") for owner in owners):
            remedy += f" Or install lit-mbldm once more, to own the name again: {_REINSTALL}."
        problem = Problem(what, remedy)
    section.row("lightning runs", _told(script), problem)


def _lit_mbldm(section: Section, script: Script | None) -> None:
    if script is not None:
        problem = _misplaced(section, "lit-mbldm", script)
        if script.python is not None and not script.ours:
            what = f"`lit-mbldm` is another program's: {script.path}."
            problem = Problem(what, f"Run `python -m lit_mbldm`, or install it anew: {_REINSTALL}.")
        section.row("lit-mbldm runs", _told(script), problem)
        return
    section.row("lit-mbldm runs", "nothing: not on the path")
    there = Path(sys.executable).parent / "lit-mbldm"
    command = there if os.access(there, os.X_OK) else f"{sys.executable} -m lit_mbldm"
    section.notes.append(
        f"This environment's commands are not on the path. Activate it, or run `{command}`."
    )


def _misplaced(section: Section, name: str, script: Script) -> Problem | None:
    """What is wrong with a script of ours by where it runs; of a wrapper that is unknown."""
    if script.python is None:
        section.notes.append(
            f"`{name}` on the path is a wrapper that cannot be examined. Where it does not run this"
            f" environment's lit_mbldm, `{sys.executable} -m lit_mbldm` does."
        )
        return None
    if script.here:
        return None
    what = f"is another environment's, run by the Python in {script.python.parent}"
    if script.cannot_start:
        what = f"cannot start: it asks for `{script.python}`, which is not on the path"
    return Problem(
        f"`{name}` on the path {what}; this report is of {sys.executable}.",
        f"Activate the environment you mean, or run `{sys.executable} -m lit_mbldm`.",
    )
