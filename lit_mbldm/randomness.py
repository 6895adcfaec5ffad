"""Random numbers keyed by sample: none depends on the batch or on the number of devices."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def _hash(key: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


class SampleStreams:
    """One random stream for each sample of a batch.

    Args:
        keys: B keys, each a tuple of integers such as (seed, sample) or
            (seed, step, rank, sample); equal keys give equal streams.
        device: where the numbers are drawn. Streams of another kind of device differ.
    """

    def __init__(self, keys: Sequence[tuple[int, ...]], device: torch.device | str = "cpu") -> None:
        self.keys = list(keys)
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(_hash(key)) for key in keys]

    def __len__(self) -> int:
        return len(self.generators)

    def branch(self, number: int, rows: slice = slice(None)) -> "SampleStreams":
        """New streams of some of the samples, keyed by a number too: the same at every call."""
        return SampleStreams([(*key, number) for key in self.keys[rows]], self.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers (B, *shape), float32."""
        out = torch.empty(len(self), *shape, device=self.device)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape), float32."""
        out = torch.empty(len(self), *shape, device=self.device)
        for row, generator in zip(out, self.generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def integers(self, low: int, high: int) -> Tensor:
        """One integer a sample, uniform in [low, high), (B,) int64."""
        return torch.cat(
            [
                torch.randint(low, high, (1,), generator=g, device=self.device)
                for g in self.generators
            ]
        )
