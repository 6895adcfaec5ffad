"""What `lit-mbldm doctor` tells of an installation and its machine.

Its modules import torch and huggingface_hub nowhere at the top: it must run where they do not.
"""

from lit_mbldm.doctor.run import run_doctor

__all__ = ["run_doctor"]
