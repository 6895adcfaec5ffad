from typing import Any

import pytest
import torch

from lit_mbldm.codecs import CoefficientLatent, ImageCodec, IndexLatent, JointCodec, PatchCodec
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained


def every_code(num_codes: int, codebook_size: int = 256) -> torch.Tensor:
    """Each code once in every channel, in another order."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(codebook_size, generator=generator) for _ in range(num_codes)]
    return torch.stack(orders).view(1, num_codes, 1, -1).to(torch.uint8)


def test_codes_survive_the_index_latent():
    latent, codes = IndexLatent(), torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    z0 = latent.to_latent(codes)
    assert (z0.min(), z0.max()) == (-1, 1)
    assert torch.equal(latent.to_codes(z0), codes)
    assert torch.equal(latent.to_codes(z0 * 1.5).unique()[[0, -1]], codes.unique()[[0, -1]])


EITHER_CODEC = pytest.mark.parametrize("name", ["opq-32-8-8", "jpq-48", "jpq-48+decoder"])


def photographs(count: int = 4) -> torch.Tensor:
    """Smooth colours with some noise, (count, 3, 32, 48) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 3, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (32, 48), mode="bicubic")
    return (
        ((smooth + 0.02 * torch.randn(smooth.shape, generator=generator)) * 255)
        .clamp(0, 255)
        .byte()
    )


def fitted(codec: ImageCodec, images: torch.Tensor | None, **options: Any) -> CoefficientLatent:
    latent = CoefficientLatent(**options)
    latent.use(codec)
    assert not latent.fitted
    codes = every_code(codec.num_codes) if images is None else codec.encode(images)
    latent.fit(latent.moments(codes, images))
    assert latent.fitted
    return latent


@EITHER_CODEC
@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_coefficients_are_decorrelated_ordered_and_of_unit_scale(name, whitening):
    codec, images = load_pretrained(name), photographs()
    latent = fitted(codec, images, channels=8, whitening=whitening)
    z0 = latent.to_latent(codec.encode(images), images)
    assert (z0.shape, z0.dtype) == ((4, 8, 4, 6), torch.float32)
    covariance = torch.cov(z0.transpose(0, 1).flatten(1), correction=0)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, variances.diag(), atol=1e-2, rtol=0)
    assert float(variances.mean()) == pytest.approx(1, abs=1e-3)
    spread = variances[:-1] / variances[1:]
    assert (spread > 0.99).all()
    assert bool((spread < 1.02).all()) == (whitening == 1)


@EITHER_CODEC
def test_more_coefficients_decode_better(name):
    codec, images = load_pretrained(name), photographs()
    codes = codec.encode(images)
    errors = []
    for channels in (3, 12, 96):
        latent = fitted(codec, images, channels=channels)
        decoded = latent.decode(latent.to_latent(codes, images))
        errors.append(float((decoded.float() - images.float()).square().mean()))
    assert errors[0] > errors[1] > errors[2]
    if "decoder" not in name:
        quantised = float((codec.decode(codes).float() - images.float()).square().mean())
        assert errors[2] < quantised


@EITHER_CODEC
@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_codes_survive_all_their_coefficients(name, whitening):
    codec = load_pretrained(name)
    D = sum(book.shape[1] for book in codec.codebooks())
    latent = fitted(codec, None, channels=D, whitening=whitening, quantized=True)
    codes = every_code(6).expand(2, -1, -1, -1)
    z0 = latent.to_latent(codes)
    assert torch.equal(latent.to_codes(z0), codes)
    assert torch.equal(latent.decode(z0), codec.decode(codes))
    assert latent.decode(z0, (5, 7)).shape == (2, 3, 5, 7)


def test_moments_add_up():
    codec, images = load_pretrained("jpq-48"), photographs()
    whole, halves = (CoefficientLatent(4) for _ in range(2))
    for latent, parts in ((whole, [images]), (halves, [images[:1], images[1:]])):
        latent.use(codec)
        latent.fit(sum(latent.moments(codec.encode(part), part) for part in parts))
    torch.testing.assert_close(whole.basis, halves.basis)


def test_latents_that_do_not_fit_the_codec_are_refused():
    opq = PatchCodec("OPQ-32-8-8")
    with pytest.raises(InputError, match="latent has codebook_size 16, the codec 256"):
        IndexLatent(16).use(opq)
    with pytest.raises(InputError, match="channels of at least 1"):
        CoefficientLatent(0)
    with pytest.raises(InputError, match="channels from 1 to the 96 numbers of a position, got 97"):
        CoefficientLatent(97).use(JointCodec("JPQ-48"))
    latent = CoefficientLatent(4)
    latent.use(PatchCodec("RQ-16-8-8"))
    with pytest.raises(InputError, match="add up"):
        latent.to_latent(every_code(4), photographs())
