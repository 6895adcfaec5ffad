"""LightningModules and their callbacks: wiring only."""

from lit_mbldm.training.callbacks.annealing import AnnealGumbelTemperature
from lit_mbldm.training.callbacks.pictures import RefineImages, SampleImages
from lit_mbldm.training.callbacks.predict import WriteSamples
from lit_mbldm.training.callbacks.scores import ScoreSamples
from lit_mbldm.training.categorical import CategoricalDiffusion
from lit_mbldm.training.continuous import ContinuousDiffusion
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import Refiner

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
