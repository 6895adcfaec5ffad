"""Features of the training set, and of the codec's reconstructions of it; kept in files."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data.reference import ReferenceSet
from lit_mbldm.errors import InputError
from lit_mbldm.features import features_identity
from lit_mbldm.fidelity import KEPT, FeatureSet, spread
from lit_mbldm.ranks import from_first, gather_rows, is_first, sum_ranks
from lit_mbldm.storage.atomic import replacing

_FORMAT = 1
_CHUNK = 64
MAX_SKIPPED = 0.01


@dataclass(frozen=True)
class Reference:
    """Features that samples are compared with.

    Attributes:
        real: of the training images, or of the decoded training codes where there are no images.
        reconstructed: of the codec's reconstructions; None where there are no images.
    """

    real: FeatureSet
    reconstructed: FeatureSet | None


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/lit_mbldm/reference`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lit_mbldm" / "reference"


def measure_reference(
    data: ReferenceSet,
    codec: ImageCodec,
    features: nn.Module,
    cache: Path,
    device: torch.device,
) -> Reference | None:
    """Read features of a training set from the cache, or compute them on all processes.

    Args:
        data: this process's share of the set.
        codec: of the model, on `device`.
        features: the network, on `device`.
        cache: folder of kept features.
        device: where to compute.

    Returns:
        The features in the first process, None in the others.

    Raises:
        InputError: more than 1 % of the set cannot be read.
    """
    paths = _paths(data, codec, features, cache)
    found = {name: _read(path) for name, path in paths.items()} if is_first() else {}
    missing = from_first([name for name in paths if found.get(name) is None], device)
    for name, made in _compute(missing, data, codec, features, device).items():
        found[name] = made
        _check_complete(made.count, data.count)
        if is_first():
            _keep(made, paths[name], data.count)
    if not is_first():
        return None
    real = found["real"]
    assert real is not None
    return Reference(real, found.get("reconstructed"))


def _paths(
    data: ReferenceSet, codec: ImageCodec, features: nn.Module, cache: Path
) -> dict[str, Path]:
    key: dict[str, Any] = {
        "format": _FORMAT,
        "kind": data.kind,
        "data": data.identity,
        "features": features_identity(features),
    }
    with_codec = {**key, "codec": codec.image_fingerprint}
    if data.kind == "codes":
        return {"real": _path(cache, with_codec)}
    return {"real": _path(cache, key), "reconstructed": _path(cache, with_codec)}


def _path(cache: Path, key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / f"{digest}.safetensors"


def _compute(
    names: list[str],
    data: ReferenceSet,
    codec: ImageCodec,
    features: nn.Module,
    device: torch.device,
) -> dict[str, FeatureSet]:
    if not names:
        return {}
    F = int(features.num_features)  # type: ignore[arg-type]
    sums = {name: _Sums(F, data, KEPT if name == "real" else 0) for name in names}
    for images in _images(data, codec, device):
        for name in names:
            shown = images if name == "real" else codec.decode(codec.encode(images))
            sums[name].add(features(shown))
    return {name: part.over_ranks(device) for name, part in sums.items()}


def _images(data: ReferenceSet, codec: ImageCodec, device: torch.device) -> Iterator[Tensor]:
    batches = tqdm(data.batches, desc="reference", unit="batch", disable=not is_first())
    for batch in batches:
        for part in batch[data.kind].split(_CHUNK):
            moved = part.to(device)
            yield moved if data.kind == "images" else codec.decode(moved)


class _Sums:
    """A feature set in the making, of this process's share of the data."""

    def __init__(self, num_features: int, data: ReferenceSet, kept: int) -> None:
        self.total = torch.zeros(num_features, dtype=torch.float64)
        self.outer = torch.zeros(num_features, num_features, dtype=torch.float64)
        self.seen = 0
        self.data = data
        self.num_kept = kept
        self.kept = [torch.zeros(0, num_features)]

    def add(self, features: Tensor) -> None:
        """Add the next features, (B, F)."""
        first = self.data.start + self.seen
        chosen = spread(first, first + len(features), self.data.count, self.num_kept)
        x = features.cpu().double()
        self.total += x.sum(0)
        self.outer += x.T @ x
        self.seen += len(x)
        self.kept.append(x[chosen].float())

    def over_ranks(self, device: torch.device) -> FeatureSet:
        """The set of all processes' features."""
        return FeatureSet(
            sum_ranks(self.total, device),
            sum_ranks(self.outer, device),
            int(sum_ranks(torch.tensor(self.seen), device)),
            gather_rows(torch.cat(self.kept), device),
        )


def _check_complete(read: int, expected: int) -> None:
    if read < (1 - MAX_SKIPPED) * expected:
        raise InputError(
            f"{expected - read} of {expected} training samples could not be read, more than"
            f" {MAX_SKIPPED:.0%}: scores against the rest would mislead. Repair the shards, or make"
            " them again with `lit-mbldm shards`."
        )


def _keep(features: FeatureSet, path: Path, expected: int) -> None:
    """Write a feature set; a warning where it cannot be, since hours may have gone into it."""
    if features.count != expected:
        rank_zero_warn(
            f"{expected - features.count} of {expected} training samples could not be read, so the"
            " reference features are not kept and will be computed again next time."
        )
        return
    tensors = {
        "total": features.total,
        "outer": features.outer,
        "kept": features.kept,
        "count": torch.tensor(features.count),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, {"sha256": _digest(tensors)})
    except OSError as error:
        rank_zero_warn(f"The reference features cannot be kept in {path.parent}: {error}")


def _read(path: Path) -> FeatureSet | None:
    """Read a feature set; None, with a warning where the file is damaged, if there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("total", "outer", "kept", "count")}
            if (file.metadata() or {}).get("sha256") != _digest(tensors):
                raise ValueError("its checksum differs")
    except (SafetensorError, OSError, ValueError) as error:
        rank_zero_warn(f"{path} is damaged ({error}); the reference features are computed again.")
        return None
    return FeatureSet(tensors["total"], tensors["outer"], int(tensors["count"]), tensors["kept"])


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
