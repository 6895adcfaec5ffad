import copy

import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec, ImageCodec, ImplicitCodec, implicit
from lit_mbldm.codecs.sizes import resize, to_uint8
from lit_mbldm.denoisers import ImplicitNetwork, RefinerUNet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr
from lit_mbldm.zoo import load_pretrained

SIZES = [(96, 160), (130, 128), (259, 345)]


def network(trained: bool = True) -> ImplicitNetwork:
    torch.manual_seed(0)
    made = ImplicitNetwork(None, 8, 1)
    if trained:
        nn.init.normal_(made.filter.kernels.weight, std=0.2)
        nn.init.normal_(made.head.weight, std=0.5)
    return made


def codec_of(inner: ImageCodec) -> ImplicitCodec:
    return ImplicitCodec(inner, network())


def test_untrained_it_interpolates_bit_for_bit(
    opq: ImageCodec, jpq: ImageCodec, unseen: Tensor
) -> None:
    for inner in (opq, jpq, DecoderCodec(jpq, RefinerUNet(8, (1, 2), 1))):
        codec, codes = ImplicitCodec(inner, network(trained=False)), jpq.encode(unseen)
        for size in SIZES:
            assert torch.equal(codec.decode(codes, size), inner.decode(codes, size))


def test_it_differs_from_its_codec_above_its_size_only(jpq: ImageCodec, unseen: Tensor) -> None:
    codec, codes = codec_of(jpq), jpq.encode(unseen)
    for size in (None, (96, 128), (50, 70), (200, 100)):
        assert torch.equal(codec.decode(codes, size), jpq.decode(codes, size))
    for size in SIZES:
        decoded = codec.decode(codes, size)
        assert tuple(decoded.shape) == (2, 3, *size)
        assert not torch.equal(decoded, jpq.decode(codes, size))
        assert torch.equal(codec.decode(codes, size, plain=True), jpq.decode(codes, size))


def test_chunks_and_tiles_agree_with_the_whole(
    jpq: ImageCodec, unseen: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = jpq.to_vectors(unseen)
    images = jpq.restore(vectors)[:, :, :95, :121].double()  # sides that are no whole patches
    codec, vectors = codec_of(copy.deepcopy(jpq)).double(), vectors.double()
    whole = [codec.enlarge(images, vectors, size) for size in SIZES]
    monkeypatch.setattr(implicit, "_DRAWN", 1000)
    monkeypatch.setattr(implicit, "_TILE", 32)
    for size, expected in zip(SIZES, whole, strict=True):
        assert torch.allclose(codec.enlarge(images, vectors, size), expected, atol=1e-3)


def test_gradients_reach_the_network_and_none_the_codec(jpq: ImageCodec, unseen: Tensor) -> None:
    made = network()
    codec = ImplicitCodec(jpq, made)
    vectors = jpq.to_vectors(unseen).requires_grad_()
    codec.enlarge(codec.restore(vectors), vectors, (150, 200)).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0
    assert not list(codec.parameters())
    made.set_code_channels(96)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = jpq.to_images(jpq.to_vectors(unseen)) / 255
    features = made.encode(images, torch.ones(2, 96, 12, 16), 8)
    made.render(features, (96, 128), (0, 0), (100, 200), slice(0, 99), slice(3, 9)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_codes_are_the_codec_s_and_images_its_own(jpq: ImageCodec, unseen: Tensor) -> None:
    decoder = DecoderCodec(jpq, RefinerUNet(8, (1, 2), 1))
    codec = codec_of(decoder)
    assert codec.quantizer == "JPQ-48+decoder+scale"
    assert codec.fingerprint == jpq.fingerprint
    prints = {one.image_fingerprint for one in (jpq, decoder, codec, codec_of(jpq))}
    assert len(prints) == 4
    assert torch.equal(codec.encode(unseen), jpq.encode(unseen))
    with pytest.raises(InputError, match="has an implicit decoder already"):
        ImplicitCodec(codec, network())
    with pytest.raises(InputError, match="code_channels 5, the codec 96"):
        ImplicitCodec(jpq, ImplicitNetwork(5, 8, 1))
    with pytest.raises(InputError, match="has a learned decoder already"):
        DecoderCodec(codec, RefinerUNet(8, (1, 2), 1))


def test_the_shipped_decoder_beats_interpolation_at_every_scale(kodak: list[Tensor]) -> None:
    """Kodak's photographs, which it was not trained on; 2.7 is no scale of validation."""
    codec = load_pretrained("jpq-48+scale")
    assert codec.fingerprint == load_pretrained("jpq-48").fingerprint
    for scale in (1.5, 2.7, 4.0):
        side, gains = round(64 * scale), []
        for photograph in kodak[::6]:
            image = photograph[..., :side, :side]
            codes = codec.encode(to_uint8(resize(image.float(), (64, 64))))
            drawn, plain = (codec.decode(codes, (side, side), plain) for plain in (False, True))
            gains.append(psnr(drawn, image) - psnr(plain, image))
        assert torch.cat(gains).mean() > 0.02


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (200, "height, width"),
        ((0, 5), "height, width"),
        ((-3, 9), "height, width"),
        ((20_000, 20_000), "at most"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    size: tuple[int, int], told: str, jpq: ImageCodec, unseen: Tensor
) -> None:
    for codec in (jpq, codec_of(jpq)):
        with pytest.raises(InputError, match=told):
            codec.decode(codec.encode(unseen), size)
