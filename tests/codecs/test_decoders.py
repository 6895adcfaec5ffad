import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec, decoders
from lit_mbldm.denoisers import RefinerUNet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr, ssim
from lit_mbldm.zoo import load_pretrained


class Inverts(nn.Module):
    """The negative; and other than itself while it trains."""

    def forward(self, images: Tensor) -> Tensor:
        return images if self.training else 1 - images


def test_only_decode_passes_through_the_network(opq, unseen):
    codec = DecoderCodec(opq, Inverts())
    codes = codec.encode(unseen)
    assert torch.equal(codes, opq.encode(unseen))
    plain = opq.decode(codes)
    assert torch.equal(codec.decode(codes, plain=True), plain)
    for mode in (False, True):  # a network in training goes on training
        assert torch.equal(codec.train(mode).decode(codes), 255 - plain)
        assert codec.network.training == mode
    assert torch.equal(codec.reconstruct(codes), opq.reconstruct(codes))
    weights = nn.functional.one_hot(codes.long(), 256).movedim(-1, 2).float()
    assert torch.equal(codec.decode_soft(weights), opq.decode_soft(weights))
    books = codec.soft_codewords(weights.roll(1, 2).requires_grad_())
    through, without = (one.codeword_error(books, codes.long(), unseen) for one in (codec, opq))
    inverted = 255 - opq.decode_soft(weights.roll(1, 2)).round().clamp(0, 255)
    expected = ((inverted - unseen) / 127.5).square().mean((1, 2, 3))
    assert torch.allclose(through, expected, rtol=1e-4)
    assert not torch.allclose(through, without, rtol=0.1)
    through.sum().backward()


@pytest.mark.parametrize("size", [(96, 200), (31, 7), (300, 128)])
def test_codecs_decode_to_any_size(size, opq, unseen):
    """As antialiased bicubic interpolation of the decoded image, with the network and without."""
    codes = opq.encode(unseen)
    channels = opq.reconstruct(codes).flatten(0, 1).numpy()
    resized = [Image.fromarray(x).resize(size[::-1], Image.Resampling.BICUBIC) for x in channels]
    expected = torch.from_numpy(np.stack(resized)).unflatten(0, (-1, 3))
    decoded = opq.decode(codes, size)
    assert (decoded - expected.clamp(0, 255)).abs().max() <= 0.51
    codec = DecoderCodec(opq, Inverts())
    assert torch.equal(codec.decode(codes, size, plain=True), decoded)
    assert (codec.decode(codes, size).int() + decoded.int() - 255).abs().max() <= 30
    with pytest.raises(InputError, match=r"\(height, width\) in pixels, got \(0, 5\)"):
        opq.decode(codes, (0, 5))


def test_codes_are_the_codec_s_and_images_the_network_s(opq):
    torch.manual_seed(0)
    one, other = (DecoderCodec(opq, RefinerUNet(8, (1, 2), 1)) for _ in range(2))
    for name in ("fingerprint", "bits_per_pixel", "code_names"):
        assert getattr(one, name) == getattr(opq, name)
    assert one.latent_shape(16, 24) == opq.latent_shape(16, 24)
    assert one.quantizer == "OPQ-32-8-8+decoder"
    assert not list(one.parameters())
    same = DecoderCodec(opq, copy.deepcopy(one.network))
    assert opq.image_fingerprint == opq.fingerprint
    assert one.image_fingerprint == same.image_fingerprint
    assert len({codec.image_fingerprint for codec in (opq, one, other)}) == 3
    with pytest.raises(InputError, match="has a learned decoder already"):
        DecoderCodec(one, Inverts())


def test_the_network_given_is_left_alone(opq, unseen):
    network = RefinerUNet(8, (1, 2), 1).train()
    codec = DecoderCodec(opq, network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    codes = codec.encode(unseen)
    before = codec.decode(codes)
    torch.nn.init.ones_(network.head.weight)
    assert torch.equal(codec.decode(codes), before)


def test_images_are_split_to_bound_memory(opq, unseen, monkeypatch):
    codec = DecoderCodec(opq, Inverts())
    codes = codec.encode(unseen)
    sizes = []
    codec.network.register_forward_hook(lambda module, given, made: sizes.append(len(made)))
    whole = codec.decode(codes)
    monkeypatch.setattr(decoders, "_PIXELS", 1)
    assert torch.equal(codec.decode(codes), whole)
    assert sizes == [2, 1, 1]
    assert codec.decode(codes[:0]).shape == whole[:0].shape


def test_mixed_precision_changes_no_pixel(opq, unseen):
    torch.manual_seed(0)
    network = RefinerUNet(8, (1, 2), 1)
    nn.init.normal_(network.head.weight, std=0.1)
    codec = DecoderCodec(opq, network)
    codes = opq.encode(unseen)
    expected = codec.decode(codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.decode(codes), expected)
    assert not torch.equal(expected, opq.decode(codes))


def test_the_shipped_decoder_improves_photographs_and_the_grid_of_patches_fades(kodak):
    """Kodak's, which it was not trained on; of jpq-48's codes."""
    codec, gains = load_pretrained("jpq-48+decoder"), []
    opq = load_pretrained("opq-32-8-8")
    assert codec.fingerprint == load_pretrained("jpq-48").fingerprint
    for photograph in kodak[::6]:
        image = photograph[..., :256, :256].contiguous()
        codes = codec.encode(image)
        decoded, plain = codec.decode(codes), codec.decode(codes, plain=True)
        blocks = opq.decode(opq.encode(image))
        gains.append([float(f(image, decoded) - f(image, plain)) for f in (psnr, ssim)])
        assert border_step(decoded) < border_step(plain) < 0.7 * border_step(blocks)
    decibels, similarity = torch.tensor(gains).mean(0)
    assert decibels > 0.3
    assert similarity > 0.01


def border_step(images: Tensor) -> float:
    """The step across a border between patches, relative to those inside."""
    steps = images.float().diff(dim=3).abs().mean((0, 1, 2))  # (W-1,)
    across = torch.arange(len(steps)) % 8 == 7
    return float(steps[across].mean() / steps[~across].mean())
