"""Features of the training set, and of the codec's reconstructions of it; kept in files."""

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data.loading.reference import ReferenceSet
from lit_mbldm.metrics.fidelity import KEPT, FeatureSet, spread
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.parallel.ranks import from_first, gather_rows, is_first, sum_ranks
from lit_mbldm.storage.tensor_file import read_tensors, write_tensors

_FORMAT = 1
_CHUNK = 64
_PART_SECONDS = 60  # between writes of unfinished sums, some 100 MB for Inception


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

    A computation that was killed goes on from sums that each process wrote every minute, if the
    data is shared out to as many processes and workers.

    Args:
        data: this process's share of the set.
        codec: of the model, on `device`.
        features: the network, on `device`.
        cache: folder of kept features.
        device: where to compute.

    Returns:
        The features in the first process, None in the others.

    Raises:
        InputError: more of the set cannot be read than its loader tolerates.
    """
    paths = _paths(data, codec, features, cache)
    found = {name: _read(path) for name, path in paths.items()} if is_first() else {}
    missing = from_first([name for name in paths if found.get(name) is None], device)
    if missing:
        part = _part_path(paths, missing, data)
        sums = _compute(missing, data, codec, features, device, part)
        found |= {name: _over_ranks(made, device) for name, made in sums.items()}
        if is_first():
            _keep({paths[name]: found[name] for name in missing}, data.count)
        if part.exists():
            part.unlink()
    if not is_first():
        return None
    real = found["real"]
    assert real is not None
    return Reference(real, found.get("reconstructed"))


def _paths(
    data: ReferenceSet, codec: ImageCodec, features: nn.Module, cache: Path
) -> dict[str, Path]:
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "kind": data.kind,
        "data": data.fingerprint,
        "features": features_fingerprint(features),
    }
    with_codec = {**facts, "codec": codec.image_fingerprint}
    if data.kind == "codes":
        return {"real": _path(cache, with_codec)}
    return {"real": _path(cache, facts), "reconstructed": _path(cache, with_codec)}


def _path(cache: Path, facts: dict[str, Any]) -> Path:
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache / f"{sha256}.safetensors"


def _part_path(paths: dict[str, Path], missing: list[str], data: ReferenceSet) -> Path:
    """Where this process keeps sums over its first batches; what decides their order is in it."""
    order = [data.start, len(data.batches), data.batches.num_workers]
    facts = {"sums": [paths[name].name for name in missing], "order": order}
    return _path(paths["real"].parent, facts).with_suffix(".part")


def _compute(
    names: list[str],
    data: ReferenceSet,
    codec: ImageCodec,
    features: nn.Module,
    device: torch.device,
    part: Path,
) -> dict[str, FeatureSet]:
    """The features of this process's share."""
    sums, done = _restore(names, part, int(features.num_features))  # type: ignore[arg-type]
    written = time.monotonic()
    batches = tqdm(data.batches, desc="reference", unit="batch", disable=not is_first())
    for number, batch in enumerate(batches, start=1):
        if number <= done:
            continue
        for chunk in batch[data.kind].split(_CHUNK):
            images = chunk.to(device)
            if data.kind == "codes":
                images = codec.decode(images)
            for name in names:
                shown = images if name == "real" else codec.decode(codec.encode(images))
                kept = KEPT if name == "real" else 0
                sums[name] = _added(sums[name], features(shown), data, kept)
        if time.monotonic() - written > _PART_SECONDS:
            tensors = {f"{name}.{k}": v for name in names for k, v in _tensors(sums[name]).items()}
            write_tensors({**tensors, "batches": torch.tensor(number)}, part)
            written = time.monotonic()
    return sums


def _added(sums: FeatureSet, features: Tensor, data: ReferenceSet, kept: int) -> FeatureSet:
    """The set with the next features, (B, F)."""
    x, first = features.cpu().double(), data.start + sums.count
    chosen = spread(first, first + len(x), data.count, kept)
    return FeatureSet(
        sums.total + x.sum(0),
        sums.outer.addmm(x.T, x),
        sums.count + len(x),
        torch.cat([sums.kept, x[chosen].float()]),
    )


def _over_ranks(sums: FeatureSet, device: torch.device) -> FeatureSet:
    """The set of all processes' features."""
    return FeatureSet(
        sum_ranks(sums.total, device),
        sum_ranks(sums.outer, device),
        int(sum_ranks(torch.tensor(sums.count), device)),
        gather_rows(sums.kept, device),
    )


def _restore(names: list[str], part: Path, F: int) -> tuple[dict[str, FeatureSet], int]:
    """The sums of a computation that was killed, and how many batches they hold; else zeros."""
    tensors = read_tensors(part)
    if tensors is None:
        zero = torch.zeros(F, F, dtype=torch.float64)
        empty = FeatureSet(zero.sum(0), zero, 0, torch.zeros(0, F))
        return dict.fromkeys(names, empty), 0
    return {name: _features(tensors, f"{name}.") for name in names}, int(tensors["batches"])


def _tensors(features: FeatureSet) -> dict[str, Tensor]:
    return {**vars(features), "count": torch.tensor(features.count)}


def _features(tensors: dict[str, Tensor], prefix: str = "") -> FeatureSet:
    total, outer, count, kept = (
        tensors[prefix + name] for name in ("total", "outer", "count", "kept")
    )
    return FeatureSet(total, outer, int(count), kept)


def _keep(found: dict[Path, FeatureSet | None], expected: int) -> None:
    """Write complete feature sets; a warning where they are not, since hours may go into them."""
    for path, features in found.items():
        assert features is not None
        if features.count != expected:
            rank_zero_warn(
                f"{expected - features.count} of {expected} training samples could not be read, so"
                " the reference features are not kept and will be computed again next time."
            )
            return
        write_tensors(_tensors(features), path)


def _read(path: Path) -> FeatureSet | None:
    tensors = read_tensors(path)
    return None if tensors is None else _features(tensors)
