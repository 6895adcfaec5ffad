"""How many bits a patch of held-out images a model of codes needs at most."""

import math

import torch
from torch import Tensor

from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.parallel.ranks import sum_ranks
from lit_mbldm.processes.bound import DiscreteProcess, bound
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.diffusion import DiffusionModule

_GOLDEN = (math.sqrt(5) - 1) / 2
_CHUNK = 64
_TIMES = 8  # of each image


@torch.inference_mode()
def bits_a_patch(model: DiffusionModule, data: ReferenceSet) -> dict[str, float]:
    """The variational bound of a set without labels, `bits`, and its standard error, `bits_std`.

    Each process takes its share. Nothing for a process that gives no probabilities of codes.
    """
    if not isinstance(model.process, DiscreteProcess):
        return {}
    sums = torch.zeros(3, dtype=torch.float64)  # of 1, bits and their squares
    number = data.start
    for batch in data.batches:
        for rows in batch[data.kind].to(model.device).split(_CHUNK):
            codes = model.codec.encode(rows) if data.kind == "images" else rows
            bits = _bits(model, codes, number)
            sums += torch.stack([torch.ones_like(bits), bits, bits.square()]).sum(1)
            number += len(codes)
    count, total, squares = sum_ranks(sums, model.device).tolist()
    mean = total / count
    return {"bits": mean, "bits_std": math.sqrt(max(0.0, squares / count - mean**2) / count)}


def _bits(model: DiffusionModule, codes: Tensor, first: int) -> Tensor:
    """The bound of codes (B, S, h, w), numbered from the first, in bits a patch: (B,) float64.

    Each is the mean at a few times, spread evenly over them and over all images.
    """
    numbers, T = torch.arange(first, first + len(codes)), model.process.num_timesteps
    streams = SampleStreams([(*model.validation_key(), n) for n in numbers.tolist()], model.device)
    z0, total = model.latent.to_latent(codes), torch.zeros(len(codes), dtype=torch.float64)
    assert isinstance(model.process, DiscreteProcess)
    for i in range(_TIMES):
        t = 1 + (T * ((numbers.double() * _GOLDEN + i / _TIMES) % 1)).long()
        nats = bound(model.process, model.denoiser, z0, t.to(model.device), streams)
        total += nats.cpu().double()  # in this order: some devices lack float64
    return total / (_TIMES * math.log(2) * math.prod(model.codes_shape[1:]))
