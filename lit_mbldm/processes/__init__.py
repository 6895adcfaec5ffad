"""Processes: how a latent is noised, what the loss is, how one reverse step goes."""

from lit_mbldm.processes.bernoulli import BernoulliProcess
from lit_mbldm.processes.categorical import CategoricalProcess
from lit_mbldm.processes.consistency import ConsistencyProcess
from lit_mbldm.processes.gaussian import GaussianProcess
from lit_mbldm.processes.joint_bernoulli import JointBernoulliProcess
from lit_mbldm.processes.multi_stage import MultiStageProcess
from lit_mbldm.processes.stages import Blur, Pool, Quantise, Truncate

__all__ = [
    "BernoulliProcess",
    "Blur",
    "CategoricalProcess",
    "ConsistencyProcess",
    "GaussianProcess",
    "JointBernoulliProcess",
    "MultiStageProcess",
    "Pool",
    "Quantise",
    "Truncate",
]
