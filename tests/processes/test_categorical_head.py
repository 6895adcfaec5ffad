"""The loss in bounded memory against the same loss with all logits at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import CategoricalProcess, categorical_head
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.zoo import load_pretrained

B, S, K, SIDE = 3, 6, 256, 4


def streams(count: int) -> SampleStreams:
    return SampleStreams([(0, i) for i in range(count)])


def process_of(**options: Any) -> CategoricalProcess:
    process = CategoricalProcess(**options)
    process.use(load_pretrained("opq-32-8-8"))
    return process


def network(process: CategoricalProcess) -> UNet:
    torch.manual_seed(0)
    made = UNet(S, process.output_channels(S), base_channels=16, channel_multipliers=(1,))
    nn.init.normal_(made.head.weight, std=0.3)
    return made


def plain_loss(process: CategoricalProcess, denoiser: nn.Module, z0: Tensor, t: Tensor) -> Tensor:
    """The class's formula with every logit at once."""
    codec, drawn = load_pretrained("opq-32-8-8"), streams(B)
    z_t = process.add_noise(z0, t, drawn)
    output = denoiser(z_t, t / 1000, torch.zeros_like(z_t)).unflatten(1, (S, -1))
    v = process.levels.view(K, 1, 1)
    logits = output[:, :, :K]
    if process.gaussian_head:
        mean, precision = output[:, :, K, None], output[:, :, K + 1, None].exp()
        logits = logits - precision * (v - mean).square() / 2
    if process.likelihood:
        a = process.log_alpha_bar[t].exp().view(B, 1, 1, 1, 1)
        logits = logits - (z_t.unsqueeze(2) - a.sqrt() * v).square() / (2 * (1 - a))
    uniform = torch.stack([drawn.branch(s).uniform((SIDE, SIDE, K)) for s in range(S)], dim=1)
    uniform = uniform.movedim(-1, 2)  # (B, S, K, h, w)
    gumbel = -(-uniform.clamp(min=1e-37).log()).log()
    soft = ((logits + gumbel) / process.gumbel_temperature).softmax(2)
    level_error = ((soft * v).sum(2) - z0).square().mean((1, 2, 3))
    codes = process.index.to_codes(z0)
    difference = (codec.decode_soft(soft) - codec.reconstruct(codes)) / 127.5
    image_error = difference.square().mean((1, 2, 3))
    snr = process.snr(t).flatten().clamp(max=process.min_snr_gamma)
    nats = F.cross_entropy(logits.movedim(2, 1), codes.long(), reduction="none").mean((1, 2, 3))
    return (
        snr * (process.latent_weight * level_error + process.image_weight * image_error)
        + process.cross_entropy_weight * nats
    )


@pytest.mark.parametrize("options", [False, True], ids=["paper", "likelihood and gaussian head"])
@pytest.mark.parametrize("limit", [1, 2 * K * SIDE**2, 2**30], ids=["tiny", "pairs", "whole"])
def test_loss_and_gradients_are_those_of_the_plain_loss(
    options: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(categorical_head, "_AT_ONCE_CPU", limit)
    process = process_of(
        schedule="cosine",
        latent_weight=2.0,
        image_weight=3.0,
        cross_entropy_weight=0.7,
        likelihood=options,
        gaussian_head=options,
        self_conditioning=False,
    )
    denoiser = network(process)
    torch.manual_seed(1)
    z0 = process.index.to_latent(torch.randint(0, K, (B, S, SIDE, SIDE)))
    t = torch.tensor([50, 400, 900])
    upstream = torch.tensor([0.2, 1.0, 3.0])

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(denoiser.parameters()), upstream))

    expected = plain_loss(process, denoiser, z0, t)
    found = process.loss(denoiser, z0, t, streams(B))
    assert torch.allclose(found, expected, rtol=1e-5)
    for got, want in zip(gradients(found), gradients(expected), strict=True):
        assert (got - want).norm() <= 1e-5 * want.norm() + 1e-8


@pytest.mark.parametrize(
    ("paper", "cross_entropy"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=["paper", "ce", "both"]
)
def test_the_backward_pass_keeps_one_number_a_logit_and_term(
    paper: float, cross_entropy: float
) -> None:
    process = process_of(
        latent_weight=paper,
        image_weight=paper,
        cross_entropy_weight=cross_entropy,
        likelihood=True,
        gaussian_head=True,
        self_conditioning=False,
    )
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held: no storage is used twice
        return tensor

    z0 = process.index.to_latent(torch.randint(0, K, (B, S, SIDE, SIDE)))
    prediction = torch.randn(B, process.output_channels(S), SIDE, SIDE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        process.loss(lambda *_: prediction, z0, torch.tensor([1, 2, 3]), streams(B))
    large = [x for x in kept.values() if x.ndim == 2 and x.shape[1] == K]
    logits = sum(x.untyped_storage().nbytes() for x in large) / (4 * B * S * K * SIDE**2)
    assert logits <= (bool(paper) + bool(cross_entropy)) * 1.1


def test_a_network_without_a_head_gives_the_same_logits() -> None:
    process = CategoricalProcess()
    headed = network(process)
    z_t = torch.randn(B, S, SIDE, SIDE)
    with torch.no_grad():
        whole = process.predict(lambda *inputs: headed(*inputs), z_t, 300)
        split = process.predict(headed, z_t, 300)
    assert whole.logits is not None
    assert split.logits is not None
    assert torch.allclose(whole.logits, split.logits, atol=1e-5)
    assert torch.allclose(process.estimate(headed, z_t, 300), split.z0, atol=1e-6)
