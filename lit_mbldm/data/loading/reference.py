"""The training set as scores see it: in order, without flips, shared out among processes."""

from dataclasses import dataclass
from typing import Any, Literal

from lit_mbldm.data.loading.loader import EpochLoader


@dataclass(frozen=True)
class ReferenceSet:
    """This process's share of a training set.

    Attributes:
        kind: key of a batch.
        fingerprint: of the whole set, of JSON's types; sets of equal fingerprint are equal.
        count: samples of all processes together.
        start: number of this process's first sample; the next are counted on from it, in whatever
            order the workers hand them over.
        batches: `{kind: uint8 (B, …)}`.
    """

    kind: Literal["images", "codes"]
    fingerprint: Any
    count: int
    start: int
    batches: EpochLoader
