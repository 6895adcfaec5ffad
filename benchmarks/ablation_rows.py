"""The rows of ablation.py: how each one's model is trained and sampled."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lit_mbldm.codecs import CoefficientLatent, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.base import Condition, Denoiser, Process
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import PowerEMA

CLUSTERS = 20


class ImmiscibleProcess(GaussianProcess):
    """Deals the noise of a batch to its samples so that noise and latents lie near each other.

    Source: Li et al. 2024, Immiscible diffusion, section 3.
    """

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """As of `GaussianProcess`, with each sample's stream one of the batch's."""
        keys = streams.branch(0).keys
        eps = SampleStreams(keys, z0.device).normal(z0.shape[1:])
        _, order = linear_sum_assignment(torch.cdist(z0.flatten(1), eps.flatten(1)).numpy())
        dealt = SampleStreams([keys[i] for i in order], z0.device)
        return super().loss(denoiser, z0, t, dealt, condition, images)


coefficients = partial(CoefficientLatent, channels=12)  # whitening 0.5
gaussian = partial(GaussianProcess, schedule="cosine", objective="v", self_conditioning=False)
categorical = partial(
    CategoricalProcess,
    schedule="cosine",
    latent_weight=0.0,
    image_weight=0.0,
    cross_entropy_weight=1.0,
    likelihood=True,
    gaussian_head=True,
)


@dataclass(frozen=True)
class Recipe:
    """How a row's model is trained and sampled; the defaults are the base row's.

    Attributes:
        codec: quantiser and patch size of one to fit, or the name of one to load.
        labels: of the data, of clusters of its images, or none.
        sampling: arguments of `sample`.
        model_of: the row whose trained model this one samples; None trains its own.
    """

    codec: str = "JPQ-32:4"
    latent: Callable[[], Latent] = coefficients
    process: Callable[[], Process] = gaussian
    optimizer: Literal["adam", "muon"] = "muon"
    learning_rate: float = 3e-3
    decay: bool = True
    average: Callable[[], WeightAveraging] = PowerEMA
    batch_size: int = 64
    labels: Literal["classes", "clusters"] | None = "classes"
    sampling: dict[str, Any] = field(default_factory=lambda: {"guidance": 1.5})
    model_of: str | None = None


def sampled(**sampling: Any) -> Recipe:
    """The base row's model, sampled in another way."""
    return Recipe(sampling=sampling, model_of="base")


EMA = partial(EMAWeightAveraging, decay=0.999, use_buffers=False)
CATEGORICAL = Recipe(  # as configs/small96_categorical.yaml, but for labels
    codec="opq-32-8-8",
    latent=IndexLatent,
    process=categorical,
    optimizer="adam",
    learning_rate=2e-3,
    decay=False,
    average=EMA,
    batch_size=32,
    sampling={"guidance": 1.5, "temperature": 0.6},
)
ROWS = {
    "base": Recipe(),
    "8 coefficients": Recipe(latent=partial(coefficients, channels=8)),
    "16 coefficients": Recipe(latent=partial(coefficients, channels=16)),
    "24 coefficients": Recipe(latent=partial(coefficients, channels=24)),
    "whitening 0": Recipe(latent=partial(coefficients, whitening=0.0)),
    "whitening 1": Recipe(latent=partial(coefficients, whitening=1.0)),
    "8×8 patches: JPQ-96, 36 coefficients": Recipe(
        codec="JPQ-96:8", latent=partial(coefficients, channels=36)
    ),
    "indices": Recipe(latent=IndexLatent),
    "decoded from codes": Recipe(latent=partial(coefficients, quantized=True), model_of="base"),
    "x₀": Recipe(process=partial(gaussian, objective="x0")),
    "self-conditioning": Recipe(process=partial(gaussian, self_conditioning=True)),
    "immiscible noise": Recipe(process=partial(ImmiscibleProcess, **gaussian.keywords)),
    "Adam 2e-3": Recipe(optimizer="adam", learning_rate=2e-3),
    "Adam 2e-3, constant": Recipe(optimizer="adam", learning_rate=2e-3, decay=False),
    "EMA 0.999": Recipe(average=EMA),
    "no labels": Recipe(labels=None, sampling={}),
    f"{CLUSTERS} clusters as labels, of code shards": Recipe(labels="clusters"),
    "guidance 1": sampled(guidance=1.0),
    "guidance 2": sampled(guidance=2.0),
    "guidance in 0.2–0.8": sampled(guidance=1.5, guidance_interval=(0.2, 0.8)),
    "categorical": CATEGORICAL,
    "categorical, no likelihood": replace(
        CATEGORICAL, process=partial(categorical, likelihood=False)
    ),
    "categorical, no Gaussian head": replace(
        CATEGORICAL, process=partial(categorical, gaussian_head=False)
    ),
    "categorical, trained as base": Recipe(
        CATEGORICAL.codec, IndexLatent, categorical, sampling=CATEGORICAL.sampling
    ),
}
