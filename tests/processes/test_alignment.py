"""Alignment of the continuous process: the error of the decoded image, through the decoder."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.codecs import (
    BitLatent,
    CoefficientLatent,
    DecoderCodec,
    ImageCodec,
    ImplicitCodec,
    IndexLatent,
    PixelCodec,
)
from lit_mbldm.denoisers import ImplicitNetwork, RefinerUNet, UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.zoo import load_pretrained

SIDE, T = 32, torch.tensor([20, 700])


def decoders() -> dict[str, ImageCodec]:
    """A plain codec, one with a learned decoder, and that with an implicit one."""
    torch.manual_seed(0)
    plain, network = load_pretrained("jpq-48"), ImplicitNetwork(None, 8, 1)
    learned = DecoderCodec(plain, RefinerUNet(8, (1, 2), 1))
    nn.init.normal_(network.head.weight, std=0.1)
    return {"plain": plain, "learned": learned, "implicit": ImplicitCodec(learned, network)}


def parts(codec: ImageCodec, weight: float) -> tuple[GaussianProcess, CoefficientLatent, Tensor]:
    images = torch.nn.functional.interpolate(
        torch.randint(0, 256, (2, 3, 8, 8)).float(), (SIDE, SIDE), mode="bilinear"
    ).byte()
    latent = CoefficientLatent(12)
    latent.use(codec)
    latent.fit(latent.moments(codec.encode(images), images))
    process = GaussianProcess(objective="v", self_conditioning=False, alignment_weight=weight)
    process.use_latent(latent)
    return process, latent, images


def losses(process: GaussianProcess, network: Any, z0: Tensor, images: Tensor | None) -> Tensor:
    return process.loss(network, z0, T, SampleStreams([(0,), (1,)]), None, images)


@pytest.mark.parametrize("name", ["plain", "learned", "implicit"])
def test_gradients_reach_the_denoiser_and_none_the_decoder(name: str) -> None:
    codec = decoders()[name]
    process, latent, images = parts(codec, 1.0)
    z0 = latent.to_latent(codec.encode(images), images)
    target = images.repeat_interleave(2, 2).repeat_interleave(2, 3)  # drawn at twice the size
    target = target if name == "implicit" else images
    before = codec.image_fingerprint
    network = UNet(12, 12, 8, (1,), 1)
    grads = []
    for weight in (0.0, 1.0):
        process.alignment_weight = weight
        network.zero_grad()
        losses(process, network, z0, target).sum().backward()
        assert network.head.weight.grad is not None
        grads.append(network.head.weight.grad.clone())
    assert (grads[1] - grads[0]).abs().sum() > 0.01 * grads[0].abs().sum()
    assert not list(codec.parameters())
    assert all(buffer.grad is None for buffer in codec.buffers())
    assert codec.image_fingerprint == before
    assert not [name for name in process.state_dict() if "codec" in name]


def test_it_adds_the_clamped_error_of_the_decoded_image() -> None:
    codec = decoders()["learned"]
    process, latent, images = parts(codec, 0.5)
    z0 = latent.to_latent(codec.encode(images), images)
    exact = latent.image_error(z0, images)
    decoded = latent.decode(z0).float()
    assert torch.allclose(exact, ((decoded - images) / 127.5).square().mean((1, 2, 3)), rtol=0.05)

    def predicts_z0(z_t: Tensor, time: Tensor, *_: Any) -> Tensor:
        alpha, sigma = process.alpha_sigma(T)
        return (alpha * z_t - z0) / sigma

    expected = 0.5 * process.snr(T).flatten().clamp(max=5) * exact
    assert torch.allclose(losses(process, predicts_z0, z0, images), expected, rtol=1e-3, atol=1e-6)


def test_indices_are_decoded_between_codewords() -> None:
    """As their images at whole indices, and exactly half-way between two levels."""
    codec, latent = decoders()["learned"], IndexLatent()
    latent.use(codec)
    codes = torch.randint(0, 255, (2, 6, 4, 4))
    images = codec.decode(codes)
    z0 = latent.to_latent(codes).requires_grad_()
    error = latent.image_error(z0, images)
    assert (error < 1e-4).all()  # of rounding
    error.sum().backward()
    assert z0.grad is not None
    pixels, shades = PixelCodec(), IndexLatent()
    shades.use(pixels)
    between = shades.smooth_vectors(shades.to_latent(codes[:, :3]) + 1 / 255)
    assert torch.allclose(pixels.to_images(between), codes[:, :3] + 0.5, atol=1e-4)


def test_what_it_cannot_decode_is_refused() -> None:
    codec = decoders()["plain"]
    process, latent, images = parts(codec, 1.0)
    z0 = latent.to_latent(codec.encode(images), images)
    with pytest.raises(InputError, match="batches hold codes alone"):
        losses(process, UNet(12, 12, 8, (1,), 1), z0, None)
    with pytest.raises(InputError, match="through which no gradient passes"):
        BitLatent().image_error(z0, images)
    with pytest.raises(InputError, match="at least 0"):
        GaussianProcess(alignment_weight=-1)
