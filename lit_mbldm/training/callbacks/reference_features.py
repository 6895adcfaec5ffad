"""Features of the reference images, and of the codec's reconstructions of them; kept in files.

The sums over a set are the fields of a FeatureSet as tensors, by their names.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.metrics.fidelity import KEPT, FeatureSet, spread
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.parallel.ranks import from_first, gather_rows, is_first, sum_ranks
from lit_mbldm.storage.tensor_file import read_tensors, write_tensors

_FORMAT = 1

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """Features of the held-out images and of the codec's reconstructions, or of decoded codes."""

    real: FeatureSet
    reconstructed: FeatureSet | None


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/lit_mbldm/reference`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lit_mbldm" / "reference"


def measure_reference(
    data: ReferenceSet, codec: ImageCodec, features: nn.Module, cache: Path, device: torch.device
) -> Reference | None:
    """Read features of reference images from the cache, or compute them on all processes.

    The first process gets them, the others None. `codec` and `features` are on `device`.

    Raises InputError where more of the set cannot be read than its loader tolerates.
    """
    facts = {"format": _FORMAT, "kind": data.kind, "data": data.fingerprint}
    facts["features"] = features_fingerprint(features)
    paths = {"real": _path(cache, {**facts, "codec": codec.image_fingerprint})}
    if data.kind == "images":
        paths = {"real": _path(cache, facts), "reconstructed": paths["real"]}
    read = {name: read_tensors(path) for name, path in paths.items()} if is_first() else {}
    found = {name: sums for name, sums in read.items() if sums is not None}
    if names := from_first([name for name in paths if name not in found], device):
        for name, sums in _compute(names, data, codec, features, device).items():
            kept = gather_rows(sums.pop("kept"), device)
            found[name] = {k: sum_ranks(v, device) for k, v in sums.items()} | {"kept": kept}
        lost = data.count - int(found[names[0]]["count"])
        if lost:  # a warning: hours may have gone into them
            rank_zero_warn(
                f"{lost} of {data.count} reference images could not be read, so their"
                " features are not kept and will be computed again next time."
            )
        for name in names if is_first() and not lost else ():
            write_tensors(found[name], paths[name])
    if not is_first():
        return None
    sets = {
        name: FeatureSet(sums["total"], sums["outer"], int(sums["count"]), sums["kept"])
        for name, sums in found.items()
    }
    return Reference(sets["real"], sets.get("reconstructed"))


def _path(cache: Path, facts: dict[str, Any]) -> Path:
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache / f"{sha256}.safetensors"


def _compute(
    names: list[str],
    data: ReferenceSet,
    codec: ImageCodec,
    features: nn.Module,
    device: torch.device,
) -> dict[str, Sums]:
    """The sums over this process's share."""
    F = int(features.num_features)  # type: ignore[arg-type]
    sums = {
        name: {
            "total": torch.zeros(F, dtype=torch.float64),
            "outer": torch.zeros(F, F, dtype=torch.float64),
            "count": torch.tensor(0),
            "kept": torch.zeros(0, F),
        }
        for name in names
    }
    for images in data.images(codec, device, "reference"):
        for name in names:
            shown = images if name == "real" else codec.decode(codec.encode(images))
            _add(sums[name], features(shown), data, KEPT if name == "real" else 0)
    return sums


def _add(sums: Sums, features: Tensor, data: ReferenceSet, most: int) -> None:
    """Add the next features, (B, F), and keep of the set at most `most`."""
    x, first = features.cpu().double(), data.start + int(sums["count"])
    sums["total"] += x.sum(0)
    sums["outer"].addmm_(x.T, x)
    sums["count"] += len(x)
    chosen = spread(first, first + len(x), data.count, most)
    sums["kept"] = torch.cat([sums["kept"], x[chosen].float()])
