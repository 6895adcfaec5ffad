import copy

import pytest
import torch

from lit_mbldm.codecs import (
    BinaryCodec,
    BitLatent,
    CoefficientLatent,
    IndexLatent,
    ScalarCodec,
    decoders,
)
from lit_mbldm.codecs.report import codec_report
from lit_mbldm.codecs.sizes import resize, to_uint8
from lit_mbldm.denoisers import ConvAutoencoder, ImplicitAutoencoder, implicit_autoencoder
from lit_mbldm.errors import InputError


@pytest.fixture
def network() -> ConvAutoencoder:
    torch.manual_seed(0)
    return ConvAutoencoder(16, 8, base_channels=8, channel_multipliers=(1, 2), blocks_per_level=1)


@pytest.fixture
def codec(network: ConvAutoencoder) -> BinaryCodec:
    return BinaryCodec(network)


def test_bits_of_the_network_are_the_codes_eight_a_byte(codec, network, unseen):
    codes = codec.encode(unseen)
    assert codes.dtype == torch.uint8
    assert codes.shape == (2, *codec.latent_shape(96, 128)) == (2, 2, 12, 16)
    assert codec.bits_per_pixel == 16 / 64
    latent = BitLatent()
    latent.use(codec)
    bits = latent.to_latent(codes)
    with torch.no_grad():
        logits = network.encode(unseen / 255)
        assert torch.equal(bits > 0, logits > 0)
        assert (logits > 0).float().std() > 0.1
        expected = 255 * network.decode(bits)
    assert torch.allclose(codec.reconstruct(codes), expected, atol=1e-3)
    assert torch.equal(latent.to_codes(bits), codes)


def test_codes_are_reproducible_and_bits_read_back(codec, unseen, monkeypatch):
    codes = codec.encode(unseen)
    assert torch.equal(codec.encode(unseen), codes)
    vectors = codec.look_up(codes.long())
    assert torch.equal(vectors.abs(), torch.ones_like(vectors))
    assert torch.equal(codec.quantize(vectors), codes.permute(0, 2, 3, 1).flatten(0, 2))
    assert torch.equal(codec.assemble(codec.split(vectors)), vectors)
    decoded = codec.decode(codes).int()
    monkeypatch.setattr(decoders, "_PIXELS", 1)  # an image at a time
    assert (codec.encode(unseen) == codes).float().mean() > 0.99  # sums in another order
    assert (codec.decode(codes).int() - decoded).abs().max() <= 1
    with torch.autocast("cpu", torch.bfloat16):
        assert (codec.decode(codes).int() - decoded).abs().max() <= 1


def test_soft_codes_decode_with_gradients_and_nothing_is_trained(codec, unseen):
    codes = codec.encode(unseen)
    weights = torch.nn.functional.one_hot(codes.long(), 256).movedim(-1, 2).float()
    weights.requires_grad_()
    soft = codec.decode_soft(weights)
    assert torch.allclose(soft, codec.reconstruct(codes), atol=1e-2)
    soft.sum().backward()
    assert weights.grad.abs().sum() > 0
    assert not list(codec.parameters())
    assert not codec.reconstruct(codes).requires_grad


def test_the_fingerprint_is_of_all_weights_and_the_network_given_is_left_alone(codec, network):
    assert BinaryCodec(copy.deepcopy(network)).fingerprint == codec.fingerprint
    assert all(p.requires_grad for p in network.parameters())
    torch.nn.init.ones_(network.generator[-2].bias)
    assert BinaryCodec(network).fingerprint != codec.fingerprint


def test_expected_bits_are_coefficients(codec, unseen):
    latent = CoefficientLatent(channels=16, whitening=0.0)
    latent.use(codec)
    codes = codec.encode(unseen)
    latent.fit(latent.moments(codes, unseen))
    z0 = latent.to_latent(codes, unseen)
    assert z0.shape == (2, 16, 12, 16)
    expected = codec.decode_vectors(codec.to_vectors(unseen))
    assert (latent.decode(z0).int() - expected.int()).abs().max() <= 1


def test_any_codec_of_codebooks_is_reported_on(codec, unseen):
    report = codec_report(codec, list(unseen))
    assert [*report.codebooks] == ["B0", "B1"]
    assert "BINARY-16 on 2 images: 0.25 bits a pixel" in str(report)
    assert "nan" not in str(report)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [({"bits": 12}, "multiple of 8"), ({"bits": 0}, "multiple of 8"),
     ({"patch_size": 8}, "multiple of 16, got 8"), ({"patch_size": 24}, "multiple of 16, got 24")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(sizes, told):
    with pytest.raises(InputError, match=told):
        ConvAutoencoder(**sizes)


def test_the_paper_s_grid_is_the_default():
    with torch.device("meta"):
        network = ConvAutoencoder()
        assert network.encode(torch.empty(1, 3, 256, 256)).shape == (1, 32, 16, 16)
        assert network.decode(torch.empty(1, 32, 16, 16)).shape == (1, 3, 256, 256)


@pytest.fixture
def field() -> ImplicitAutoencoder:
    torch.manual_seed(0)
    return ImplicitAutoencoder(2, 4, 8, (1, 2), 1, 16, 2)


def test_numbers_of_the_network_are_the_codes_of_a_scalar_codec(field, unseen):
    codec, latent = ScalarCodec(field), IndexLatent()
    codes = codec.encode(unseen)
    assert codes.shape == (2, *codec.latent_shape(96, 128)) == (2, 2, 24, 32)
    assert codec.bits_per_pixel == 16 / 16
    latent.use(codec)
    numbers = latent.to_latent(codes)
    with torch.no_grad():
        expected = (field.encode(unseen / 255) / 2).tanh()
        assert torch.allclose(numbers, expected, atol=1.01 / 255)
        assert numbers.std() > 0.01
        drawn = 255 * field.decode(numbers)
    assert torch.allclose(codec.reconstruct(codes), drawn, atol=1e-2)
    assert torch.equal(latent.to_codes(numbers), codes)


def test_a_scalar_codec_decodes_to_any_size(field, unseen, monkeypatch):
    codec = ScalarCodec(field)
    codes = codec.encode(unseen)
    assert torch.equal(codec.decode(codes, (96, 128)), codec.decode(codes))
    small = to_uint8(resize(codec.reconstruct(codes), (50, 128)))
    assert torch.equal(codec.decode(codes, (50, 128)), small)
    large = codec.decode(codes, (131, 290)).int()
    assert large.shape == (2, 3, 131, 290)
    monkeypatch.setattr(implicit_autoencoder, "_DRAWN", 1)  # a row at a time
    assert (codec.decode(codes, (131, 290)).int() - large).abs().max() <= 1
    with pytest.raises(InputError, match="at most"):
        codec.decode(codes, (1, 10**9))


def test_what_is_told_no_place_is_interpolated_bilinearly(field):
    torch.nn.init.zeros_(field.down.weight)
    torch.nn.init.zeros_(field.across.weight)
    numbers = torch.rand(1, 2, 5, 6)
    answers = field.perceptron(field.features(field.decoder(numbers)).movedim(1, -1)).movedim(-1, 1)
    expected = (torch.nn.functional.interpolate(answers, (33, 31), mode="bilinear") + 1) / 2
    assert torch.allclose(field.decode(numbers, (33, 31)), expected, atol=1e-5)
    part = field.decode(numbers, (33, 20), extent=(5, 6 * 20 / 31))
    assert torch.allclose(part, expected[..., :20], atol=1e-5)


def test_a_window_is_a_part_of_the_whole_and_gradients_pass(field):
    numbers = torch.rand(1, 2, 5, 6, requires_grad=True)
    window = slice(3, 20), slice(7, 31)
    whole, part = (field.decode(numbers, (33, 31), window=w) for w in (None, window))
    assert torch.allclose(part, whole[:, :, *window], atol=1e-5)
    part.sum().backward()
    assert numbers.grad is not None
    assert numbers.grad.abs().sum() > 0


def test_the_published_decoder_of_any_size_is_the_default():
    with torch.device("meta"):
        network = ImplicitAutoencoder()
        assert network.encode(torch.empty(1, 3, 256, 256)).shape == (1, 3, 64, 64)
        assert network.decode(torch.empty(1, 3, 64, 64)).shape == (1, 3, 256, 256)
