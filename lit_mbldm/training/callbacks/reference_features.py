"""Features of the training set, and of the codec's reconstructions of it; kept in files."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.data.loading.reference import ReferenceSet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.fidelity import KEPT, FeatureSet, spread
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.parallel.ranks import from_first, gather_rows, is_first, sum_ranks
from lit_mbldm.storage.tensor_file import read_tensors, write_tensors

_FORMAT = 1
_CHUNK = 64
_PART_SECONDS = 60  # between writes of unfinished sums, some 100 MB for Inception
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
        InputError: more than 1 % of the set cannot be read.
    """
    paths = _paths(data, codec, features, cache)
    found = {name: _read_features(path) for name, path in paths.items()} if is_first() else {}
    missing = from_first([name for name in paths if found.get(name) is None], device)
    part = _part_path(paths, missing, data)
    for name, made in _compute(missing, data, codec, features, device, part).items():
        found[name] = made
        _check_complete(made.count, data.count)
        if is_first():
            _keep(made, paths[name], data.count)
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
    key: dict[str, Any] = {
        "format": _FORMAT,
        "kind": data.kind,
        "data": data.identity,
        "features": features_fingerprint(features),
    }
    with_codec = {**key, "codec": codec.image_fingerprint}
    if data.kind == "codes":
        return {"real": _path(cache, with_codec)}
    return {"real": _path(cache, key), "reconstructed": _path(cache, with_codec)}


def _path(cache: Path, key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / f"{digest}.safetensors"


def _part_path(paths: dict[str, Path], missing: list[str], data: ReferenceSet) -> Path:
    """Where this process keeps sums over its first batches; what decides their order is in it."""
    workers = getattr(data.batches, "num_workers", 0)
    order = [data.start, len(data.batches), workers]  # type: ignore[arg-type]
    key = {"sums": [paths[name].name for name in missing], "order": order}
    return _path(paths["real"].parent, key).with_suffix(".part")


def _compute(
    names: list[str],
    data: ReferenceSet,
    codec: ImageCodec,
    features: nn.Module,
    device: torch.device,
    part: Path,
) -> dict[str, FeatureSet]:
    if not names:
        return {}
    F = int(features.num_features)  # type: ignore[arg-type]
    sums = {name: _Sums(F, data, KEPT if name == "real" else 0) for name in names}
    done, written = _restore(sums, part), time.monotonic()
    batches = tqdm(data.batches, desc="reference", unit="batch", disable=not is_first())
    for number, batch in enumerate(batches, start=1):
        if number <= done:
            continue
        for images in _images(batch[data.kind], data, codec, device):
            for name in names:
                shown = images if name == "real" else codec.decode(codec.encode(images))
                sums[name].add(features(shown))
        if time.monotonic() - written > _PART_SECONDS:
            write_tensors(_tensors(sums, number), part)
            written = time.monotonic()
    return {name: made.over_ranks(device) for name, made in sums.items()}


def _images(
    batch: Tensor, data: ReferenceSet, codec: ImageCodec, device: torch.device
) -> Iterator[Tensor]:
    for chunk in batch.split(_CHUNK):
        moved = chunk.to(device)
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


def _tensors(sums: dict[str, _Sums], batches: int) -> dict[str, Tensor]:
    tensors = {"batches": torch.tensor(batches)}
    for name, made in sums.items():
        tensors |= {f"{name}.total": made.total, f"{name}.outer": made.outer}
        tensors |= {f"{name}.kept": torch.cat(made.kept), f"{name}.seen": torch.tensor(made.seen)}
    return tensors


def _restore(sums: dict[str, _Sums], part: Path) -> int:
    """Fill in the sums of a computation that was killed; how many batches they hold."""
    tensors = read_tensors(part)
    if tensors is None:
        return 0
    for name, made in sums.items():
        made.total, made.outer = tensors[f"{name}.total"], tensors[f"{name}.outer"]
        made.kept, made.seen = [tensors[f"{name}.kept"]], int(tensors[f"{name}.seen"])
    return int(tensors["batches"])


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
    write_tensors(tensors, path)


def _read_features(path: Path) -> FeatureSet | None:
    tensors = read_tensors(path)
    if tensors is None:
        return None
    return FeatureSet(tensors["total"], tensors["outer"], int(tensors["count"]), tensors["kept"])
