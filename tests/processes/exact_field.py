"""A Gaussian field, the network that knows it, and the covariance that a sampler gives it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from lit_mbldm.processes import GaussianProcess, MultiStageProcess
from lit_mbldm.processes.base import Chance, Denoiser
from lit_mbldm.processes.randomness import SampleStreams


def autoregressive(size: int, correlation: float = 0.9) -> Tensor:
    places = torch.arange(size).double()
    return correlation ** (places[:, None] - places).abs()


def tangent_schedule(process: MultiStageProcess) -> MultiStageProcess:
    """Give a process log SNR = -2 ln tan(πt/2), t clipped to [1e-4, 1 - 1e-4], and its gains."""
    gain = 1.0
    stages = [None, *process.stages]
    for stage, noise in zip(stages, process.noises, strict=True):
        gain *= 1.0 if stage is None else stage.gain**process.snr_power
        t = torch.linspace(0, 1, process.num_timesteps + 1).double().clamp(1e-4, 1 - 1e-4)
        log_snr = math.log(gain) - 2 * (t * math.pi / 2).tan().log()
        noise.log_alpha_bar.copy_(torch.nn.functional.logsigmoid(log_snr))
        noise.log_alpha_bar[0] = 0
    return process


def exact_network(
    process: MultiStageProcess, shape: Sequence[int], covariance: Tensor, drifts: bool = True
) -> Denoiser:
    """E[v | z_t] and E[ρ | z_t] of a field N(0, covariance) of this shape; ρ is 0 unless wanted."""
    basis = torch.eye(math.prod(shape)).double().view(-1, *shape)

    def network(z_t: Tensor, time: Tensor, *_: object) -> Tensor:
        t = round(float(time[0]) * process.num_timesteps)
        signal, residual = (part.flatten(1) for part in process.signal(basis, t))  # (n, d)
        noise = process.noises[process.stage_at(t)]
        alpha, sigma = (part.double().flatten() for part in noise.alpha_sigma(t))
        cross = alpha * covariance @ signal  # of z_0 and z_t
        own = alpha * signal.mT @ cross + sigma.square() * torch.eye(signal.shape[1])
        z = z_t.flatten(1).double()
        z0 = torch.linalg.solve(own, z.mT).mT @ cross.mT  # E[z_0 | z_t]
        v = (alpha * z - z0 @ signal) / sigma
        found = z0 @ residual if drifts else torch.zeros_like(v)
        return torch.stack([v, found], 1).flatten(1).view(len(z), -1, *z_t.shape[2:])

    return network


class BasisStreams:
    """In place of streams: each noise drawn is the unit vectors, in rows of its own."""

    def __init__(self, rows: int, first: int) -> None:
        self.rows, self.first = rows, first

    def normal(self, shape: Sequence[int]) -> Tensor:
        size = math.prod(shape)
        noise = torch.zeros(self.rows, size).double()
        noise[self.first : self.first + size] = torch.eye(size)
        self.first += size
        return noise.view(-1, *shape)


def sampled_covariance(
    process: MultiStageProcess | GaussianProcess,
    network: Denoiser,
    shape: Sequence[int],
    steps: int,
    eta: float = 0.0,
) -> Tensor:
    """The covariance of DDIM's samples: each step is linear in z_t and the noise it draws.

    Rows are what z is of independent unit numbers; the product's own steps act on them.
    """
    times = process.time_grid(steps)
    first = process.shape_at(shape, times[0])
    z = torch.eye(math.prod(first)).double().view(-1, *first)
    for t, s in pairwise(times):
        rows = len(z) + z[0].numel() + math.prod(shape)
        padded = torch.cat([z, z.new_zeros(rows - len(z), *z.shape[1:])])
        streams = cast(SampleStreams, BasisStreams(rows, len(z)))
        prediction = process.predict(network, padded, t)
        z = process.ddim(padded, prediction, t, s, Chance(streams, eta=eta)).double()
        z = _fewer(z)
    return z.flatten(1).mT @ z.flatten(1)


def _fewer(rows: Tensor) -> Tensor:
    """As many rows as there are numbers, of the same covariance."""
    flat = rows.flatten(1)
    values, vectors = torch.linalg.eigh(flat.mT @ flat)
    return (values.clamp(min=0).sqrt()[:, None] * vectors.mT).view(-1, *rows.shape[1:])


def relative_error(found: Tensor, expected: Any) -> float:
    return float((found - expected).norm() / expected.norm())
