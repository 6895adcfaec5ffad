"""Processes: how a latent is noised, what the loss is, how one reverse step goes."""

from lit_mbldm.processes.categorical import CategoricalProcess
from lit_mbldm.processes.gaussian import GaussianProcess

__all__ = ["CategoricalProcess", "GaussianProcess"]
