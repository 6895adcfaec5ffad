"""LightningModules and their callbacks: wiring only."""

from lit_mbldm.training.annealing import AnnealGumbelTemperature
from lit_mbldm.training.categorical import CategoricalDiffusion
from lit_mbldm.training.continuous import ContinuousDiffusion
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.pictures import SampleImages
from lit_mbldm.training.predict import WriteSamples
from lit_mbldm.training.refined_pictures import RefineImages
from lit_mbldm.training.refiner import Refiner
from lit_mbldm.training.scores import ScoreSamples

__all__ = [
    "AnnealGumbelTemperature",
    "CategoricalDiffusion",
    "ContinuousDiffusion",
    "RefineImages",
    "Refiner",
    "SampleImages",
    "SampleOptions",
    "ScoreSamples",
    "WriteSamples",
]
