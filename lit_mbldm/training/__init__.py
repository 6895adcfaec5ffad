"""LightningModules and their callbacks: wiring only."""

from lit_mbldm.training.autoencoder import BinaryAutoencoder, ScalarAutoencoder
from lit_mbldm.training.callbacks.annealing import AnnealGumbelTemperature
from lit_mbldm.training.callbacks.averaging import PowerEMA
from lit_mbldm.training.callbacks.pictures import RefineImages, SampleImages
from lit_mbldm.training.callbacks.predict import WriteSamples
from lit_mbldm.training.callbacks.scores import ScoreSamples
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.generative_decoder import GenerativeDecoder
from lit_mbldm.training.implicit import ImplicitDecoder
from lit_mbldm.training.kinds import (
    BernoulliDiffusion,
    CategoricalDiffusion,
    ConsistencyDiffusion,
    ContinuousDiffusion,
    StageDiffusion,
)
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import Refiner
from lit_mbldm.training.upscaler import Upscaler

__all__ = [
    "AnnealGumbelTemperature",
    "BernoulliDiffusion",
    "BinaryAutoencoder",
    "CategoricalDiffusion",
    "ConsistencyDiffusion",
    "ContinuousDiffusion",
    "DiffusionModule",
    "GenerativeDecoder",
    "ImplicitDecoder",
    "PowerEMA",
    "RefineImages",
    "Refiner",
    "SampleImages",
    "SampleOptions",
    "ScalarAutoencoder",
    "ScoreSamples",
    "StageDiffusion",
    "Upscaler",
    "WriteSamples",
]
