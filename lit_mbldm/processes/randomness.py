"""Random numbers keyed by sample: none depends on the batch or on the number of devices."""

import hashlib
import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_mbldm.errors import InputError


def read_seed(seed: object) -> int:
    """The seed as Python's integer, so that equal numbers of any type are one seed.

    Raises InputError for no integer of Python, numpy or torch, such as a float, a text or a list.
    """
    try:
        return operator.index(seed)  # type: ignore[arg-type]
    except TypeError as error:
        found = f"{type(seed).__name__} {seed!r:.80}"
        raise InputError(f"Expected one whole number as seed, got {found}.") from error


def _hash(key: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


class _TorchStream:
    """Numbers drawn on a device by torch."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def fill_normal(self, out: Tensor) -> None:
        out.normal_(generator=self.generator)

    def fill_uniform(self, out: Tensor) -> None:
        out.uniform_(generator=self.generator)

    def integer(self, low: int, high: int) -> Tensor:
        device = self.generator.device
        return torch.randint(low, high, (1,), generator=self.generator, device=device)


class _NumpyStream:
    """Numbers drawn on the CPU, where numpy's SFC64 is faster than torch's Mersenne twister."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.Generator(np.random.SFC64(seed))

    def fill_normal(self, out: Tensor) -> None:
        drawn = self.generator.standard_normal(out.numel(), dtype=np.float32)
        out.copy_(torch.from_numpy(drawn).view_as(out))

    def fill_uniform(self, out: Tensor) -> None:
        words = self.generator.bit_generator.random_raw(-(-out.numel() // 2))  # 64 bits each
        halves = torch.from_numpy(words.view(np.int32))[: out.numel()]
        # 24 bits fill a float32's mantissa
        out.copy_(halves.bitwise_and_(0xFFFFFF).view_as(out)).mul_(2**-24)

    def integer(self, low: int, high: int) -> Tensor:
        return torch.from_numpy(self.generator.integers(low, high, 1))


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
        self._streams = [
            _NumpyStream(_hash(key))
            if self.device.type == "cpu"
            else _TorchStream(_hash(key), self.device)
            for key in keys
        ]

    def __len__(self) -> int:
        return len(self._streams)

    def branch(self, number: int, rows: slice = slice(None)) -> "SampleStreams":
        """New streams of some of the samples, keyed by a number too: the same at every call."""
        return SampleStreams([(*key, number) for key in self.keys[rows]], self.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers (B, *shape), float32."""
        return self._fill("fill_normal", shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape), float32."""
        return self._fill("fill_uniform", shape)

    def _fill(self, method: str, shape: Sequence[int]) -> Tensor:
        out = torch.empty(len(self), *shape, device=self.device)
        for row, stream in zip(out, self._streams, strict=True):
            getattr(stream, method)(row)
        return out

    def integers(self, low: int, high: int) -> Tensor:
        """One integer a sample, uniform in [low, high), (B,) int64."""
        return torch.cat([stream.integer(low, high) for stream in self._streams])


class BlendedStreams(SampleStreams):
    """Streams between two others: their numbers change gradually, distributed as theirs are.

    Normal numbers are cos(θ) a + sin(θ) b, θ = w·π/2. Uniform ones are taken for probabilities of
    normal numbers, and these blended.

    Args:
        first: B streams, those at weight 0.
        second: B streams, those at weight 1.
        weights: w of each sample, (B,) in [0, 1].
    """

    def __init__(self, first: SampleStreams, second: SampleStreams, weights: Tensor) -> None:
        super().__init__([])
        self.device = first.device
        self.ends = first, second
        self.weights = weights.to(first.device)

    def __len__(self) -> int:
        return len(self.weights)

    def branch(self, number: int, rows: slice = slice(None)) -> "BlendedStreams":
        """New streams between branches of both ends."""
        first, second = (end.branch(number, rows) for end in self.ends)
        return BlendedStreams(first, second, self.weights[rows])

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers (B, *shape), float32."""
        a, b = (end.normal(shape) for end in self.ends)
        return self._between(a, b, self._blend(a, b))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape), float32."""
        a, b = (end.uniform(shape) for end in self.ends)
        normal = (torch.special.ndtri(one.clamp(min=2**-25)) for one in (a, b))
        below_one = torch.special.ndtr(self._blend(*normal)).clamp(max=1 - 2**-24)
        return self._between(a, b, below_one)

    def _blend(self, a: Tensor, b: Tensor) -> Tensor:
        angle = self._weights(a) * (math.pi / 2)
        return angle.cos() * a + angle.sin() * b

    def _between(self, a: Tensor, b: Tensor, blended: Tensor) -> Tensor:
        """The blended numbers, but those at the ends exactly."""
        w = self._weights(a)
        return torch.where(w == 0, a, torch.where(w == 1, b, blended))

    def _weights(self, like: Tensor) -> Tensor:
        return self.weights.view(-1, *[1] * (like.ndim - 1))
