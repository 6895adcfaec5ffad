"""The rows of ablation.py: how each one's model is trained and sampled."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from lit_mbldm.codecs import BitLatent, CoefficientLatent, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.denoisers import MultiStageUNet, UNet
from lit_mbldm.denoisers.layers import Attention, ResidualBlock
from lit_mbldm.processes import (
    BernoulliProcess,
    CategoricalProcess,
    GaussianProcess,
    JointBernoulliProcess,
    MultiStageProcess,
    Pool,
    Truncate,
)
from lit_mbldm.processes.base import Condition, Denoiser, Process
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.stages import Stage
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


class AttentiveBlock(nn.Module):
    """A residual block, then attention over all positions."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.block = block
        self.attention = Attention(block.conv2.out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map (B, in, h, w) and the embedded time (B, width) to (B, out, h, w)."""
        return self.attention(self.block(x, time))


class AttentiveUNet(UNet):
    """Attends after every block below the first level, not at the bottleneck only."""

    def build(self, stem_channels: int) -> None:
        """Make the layers."""
        super().build(stem_channels)
        for blocks in (*self.down[1:], *self.up[:-1]):
            for place, block in enumerate(blocks):
                blocks[place] = AttentiveBlock(block)


class PlainProcess(GaussianProcess):
    """Takes the squared error of the objective as it is, without Min-SNR weights."""

    def loss_weight(self, t: Tensor) -> Tensor:
        """Ones (B,)."""
        return torch.ones(len(t), device=t.device)


unet = partial(UNet, base_channels=64, channel_multipliers=(1, 2))
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
        codec: quantiser and patch size of one to fit, `pixels`, or the name of one to load.
        labels: of the data, of clusters of its images, or none.
        sampling: arguments of `sample`.
        model_of: the row whose trained model this one samples; None trains its own.
    """

    codec: str = "JPQ-32:4"
    latent: Callable[[], Latent] = coefficients
    process: Callable[[], Process] = gaussian
    network: partial[UNet] = unet
    optimizer: Literal["adam", "muon"] = "muon"
    learning_rate: float = 3e-3
    decay: bool = True
    average: Callable[[], WeightAveraging] = PowerEMA
    batch_size: int = 64
    labels: Literal["classes", "clusters"] | None = "classes"
    sampling: dict[str, Any] = field(default_factory=lambda: {"guidance": 1.5})
    model_of: str | None = None


def sampled(row: str, recipe: Recipe, **sampling: Any) -> Recipe:
    """A row's model, sampled in another way."""
    return replace(recipe, sampling={**recipe.sampling, **sampling}, model_of=row)


def staged(recipe: Recipe, stage: Callable[[], Stage]) -> Recipe:
    """A recipe in two stages, the second of which has the noisier half of the times."""
    return replace(
        recipe,
        process=lambda: MultiStageProcess(
            [stage()], [0.5], schedule="cosine", self_conditioning=False
        ),
        network=partial(MultiStageUNet, **recipe.network.keywords),
        sampling={"sampler": "ddim", "steps": 50, **recipe.sampling},
    )


BASE = Recipe()
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
BITS = Recipe(
    latent=partial(BitLatent, order="gray"),
    process=partial(BernoulliProcess, schedule="cosine", self_conditioning=False),
    sampling={"guidance": 1.5, "temperature": 0.9, "sampler": "ddpm", "steps": 64},
)
PIXELS = Recipe(
    codec="pixels",
    latent=IndexLatent,
    network=partial(UNet, base_channels=32, channel_multipliers=(1, 2, 4, 8)),
    batch_size=16,
    sampling={"guidance": 1.5, "sampler": "ddim", "steps": 25},
)
ROWS = {
    "base": BASE,
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
    "attention below the first level": Recipe(network=partial(AttentiveUNet, **unet.keywords)),
    "three levels": Recipe(network=partial(UNet, base_channels=64, channel_multipliers=(1, 2, 2))),
    "x₀": Recipe(process=partial(gaussian, objective="x0")),
    "v without Min-SNR weights": Recipe(process=partial(PlainProcess, **gaussian.keywords)),
    "self-conditioning": Recipe(process=partial(gaussian, self_conditioning=True)),
    "immiscible noise": Recipe(process=partial(ImmiscibleProcess, **gaussian.keywords)),
    "Adam 2e-3": Recipe(optimizer="adam", learning_rate=2e-3),
    "Adam 2e-3, constant": Recipe(optimizer="adam", learning_rate=2e-3, decay=False),
    "EMA 0.999": Recipe(average=EMA),
    "batches of 32": Recipe(batch_size=32),
    "batches of 16": Recipe(batch_size=16),
    "no labels": Recipe(labels=None, sampling={}),
    f"{CLUSTERS} clusters as labels, of code shards": Recipe(labels="clusters"),
    "guidance 1": sampled("base", BASE, guidance=1.0),
    "guidance 2": sampled("base", BASE, guidance=2.0),
    "guidance in 0.2–0.8": sampled("base", BASE, guidance=1.5, guidance_interval=(0.2, 0.8)),
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
    "codes of the base's codec": replace(
        BASE, latent=IndexLatent, process=categorical, sampling=CATEGORICAL.sampling
    ),
    "bits of the base's codec": BITS,
    **{
        f"bits of the base's codec, {steps} steps": sampled(
            "bits of the base's codec", BITS, steps=steps
        )
        for steps in (4, 8, 16)
    },
    "bits of the base's codec, temperature 0.6": sampled(
        "bits of the base's codec", BITS, temperature=0.6
    ),
    "bits of a code together": replace(
        BITS, process=partial(JointBernoulliProcess, **BITS.process.keywords)
    ),
    "bits of the base's codec, Min-SNR weights": replace(
        BITS, process=partial(BernoulliProcess, min_snr_gamma=5.0, **BITS.process.keywords)
    ),
    "base, ddim, 50 steps": sampled("base", BASE, sampler="ddim", steps=50),
    "base in two stages: 4, then 12 coefficients": staged(BASE, partial(Truncate, 4)),
    "pixels": PIXELS,
    "pixels in two stages: 32×32, then 64×64": staged(PIXELS, Pool),
}
