"""The report from its first heading to the verdict."""

import sys
from collections.abc import Callable

from lit_mbldm.doctor.devices import examine_devices
from lit_mbldm.doctor.disk import examine_disk
from lit_mbldm.doctor.hub import examine_hub
from lit_mbldm.doctor.missing import merged, named_in
from lit_mbldm.doctor.scripts import examine_scripts
from lit_mbldm.doctor.section import Problem, Section, verdict
from lit_mbldm.doctor.torch_findings import TorchFindings, find
from lit_mbldm.doctor.versions import examine_versions


def run_doctor() -> int:
    """Print the report.

    Returns:
        0, or 1 where something is wrong.
    """
    findings = TorchFindings({}, "")

    def devices() -> Section:
        nonlocal findings
        findings = find()
        return examine_devices(findings)

    parts: dict[str, Callable[[], Section]] = {
        "Versions": examine_versions,
        "Devices": devices,
        "Commands": examine_scripts,
        "Hub": examine_hub,
        "Disk": lambda: examine_disk(findings),
    }
    found = []
    for title, examine in parts.items():
        _print(title)  # before the work, which may take long
        section = _examined(title, examine)
        found += section.problems
        _print(section.text())
    problems = merged(found)
    _print(verdict(problems))
    return 1 if problems else 0


def _examined(title: str, examine: Callable[[], Section]) -> Section:
    try:
        return examine()
    except Exception as error:  # a broken installation raises nearly anything
        section = Section()
        what = f"{title} cannot be examined: {type(error).__name__}: {error}."
        remedy = "Install lit-mbldm anew in a fresh environment, and run this again."
        problem = named_in(str(error)) or Problem(what, remedy)
        section.row("unknown", "cannot be examined", problem)
        return section


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
