"""What `lit-mbldm doctor` finds out about an installation and its machine.

Its modules import torch and huggingface_hub nowhere at the top: doctor must run where they do not.
"""

from lit_mbldm.doctor.installation import examine_commands, examine_versions
from lit_mbldm.doctor.machine import examine_devices, examine_disk, examine_hub
from lit_mbldm.doctor.report import print_report

__all__ = ["run_doctor"]


def run_doctor() -> int:
    """Print what is installed, what there is to compute on, and what is wrong.

    Returns:
        0, or 1 where something is wrong.
    """
    parts = {
        "Versions": examine_versions,
        "Devices": examine_devices,
        "Commands": examine_commands,
        "Hub": examine_hub,
        "Disk": examine_disk,
    }
    return print_report(parts)
