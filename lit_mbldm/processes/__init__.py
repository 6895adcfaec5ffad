"""Processes: how a latent is noised, what the loss is, how one reverse step goes."""

from lit_mbldm.processes.bernoulli import BernoulliProcess
from lit_mbldm.processes.categorical import CategoricalProcess
from lit_mbldm.processes.gaussian import GaussianProcess
from lit_mbldm.processes.joint_bernoulli import JointBernoulliProcess

__all__ = ["BernoulliProcess", "CategoricalProcess", "GaussianProcess", "JointBernoulliProcess"]
