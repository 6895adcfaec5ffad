"""What `lit-mbldm doctor` finds out about an installation and its machine.

Its modules import torch and huggingface_hub nowhere at the top: doctor must run where they do not.
"""
