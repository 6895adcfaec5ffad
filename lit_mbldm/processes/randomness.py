"""Random numbers keyed by sample: none depends on the batch or on the number of devices."""

import hashlib
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_mbldm.errors import InputError


def read_seed(seed: object) -> int:
    """The seed as Python's integer, so that equal numbers of any type are one seed.

    Raises:
        InputError: no integer of Python, numpy or torch, such as a float, a text or a list.
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
