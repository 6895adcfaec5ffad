"""LightningModules and their callbacks: wiring only."""

from lit_mbldm.training.categorical import CategoricalDiffusion
from lit_mbldm.training.continuous import ContinuousDiffusion
from lit_mbldm.training.pictures import SampleImages

__all__ = ["CategoricalDiffusion", "ContinuousDiffusion", "SampleImages"]
