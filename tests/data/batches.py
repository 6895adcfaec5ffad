"""What the tests of streams and shards read."""

from typing import Any

import torch

from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.reading import Sample, read_span, spans
from lit_mbldm.data.shards.skips import SkipLog


def read_all(patterns: Any) -> tuple[list[Sample], SkipLog]:
    """The samples in order, and what was skipped."""
    shards, skips = open_shards(patterns), SkipLog()
    parts = spans(shards.shards, 0, shards.count)
    return [sample for part in parts for sample in read_span(part, skips.add)], skips


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[key], b[key])
        for a, b in zip(first, second, strict=True)
        for key in ("codes", "index")
    )
