import copy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import Image

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.codecs.channelwise import QuantizerName
from lit_mbldm.errors import InputError


@pytest.fixture(scope="module")
def codes(opq, unseen):
    return opq.encode(unseen)


def one_hot(codes: torch.Tensor, size: int = 256) -> torch.Tensor:
    return torch.nn.functional.one_hot(codes.long(), size).float().movedim(-1, 2)


class TestName:
    def test_parses_any_case(self):
        assert QuantizerName.parse("opq-32-8-8") == QuantizerName("OPQ", (32, 8, 8))
        assert QuantizerName.parse("PQ-8-4-4", codebook_size=16).bits == (8, 4, 4)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("LSQ-32-8-8", "Expected a quantiser"),
            ("OPQ-32-8", "Expected a quantiser"),
            ("OPQ-32-8-8-8", "Expected a quantiser"),
            ("OPQ--8-8-8", "Expected a quantiser"),
            ("", "Expected a quantiser"),
            ("OPQ-30-8-8", "positive multiples of 8"),
            ("OPQ-0-8-8", "positive multiples of 8"),
            ("VQ-16-8-8", "VQ has one codebook"),
        ],
    )
    def test_refuses(self, name, message):
        with pytest.raises(InputError, match=message):
            QuantizerName.parse(name)

    @pytest.mark.parametrize("size", [0, 1, 3, 512])
    def test_refuses_codebook_sizes(self, size):
        with pytest.raises(InputError, match="power of two from 2 to 256"):
            PatchCodec("PQ-8-8-8", codebook_size=size)


class TestRate:
    def test_of_the_paper(self, opq):
        assert opq.bits_per_pixel == 0.75
        assert opq.num_codes == 6
        assert opq.latent_shape(512, 512) == (6, 64, 64)
        assert PatchCodec("VQ-8-8-8").bits_per_pixel == 0.375


class TestBadInput:
    @pytest.mark.parametrize(
        "value", ["photo.png", Path("photo.png"), Image.new("RGB", (8, 8)), np.zeros((1, 3, 8, 8)),
                   [1], None]
    )  # fmt: skip
    def test_what_is_no_tensor_is_told_how_it_becomes_one(self, opq, value):
        with pytest.raises(InputError, match=r"got a .*A file becomes images by torch"):
            opq.encode(value)
        with pytest.raises(InputError, match=r"got a .*torch\.from_numpy"):
            opq.decode(value)

    def test_the_hint_of_the_message_works(self, opq, tmp_path):
        path = tmp_path / "photo.png"
        Image.new("RGB", (16, 8), "red").save(path)
        with pytest.raises(InputError) as error:
            opq.encode(path)
        hint = str(error.value).partition("images by ")[2].rstrip(".")
        images = eval(hint, {"torch": torch, "numpy": np, "PIL": PIL, "path": path})
        assert opq.encode(images).shape == (1, 6, 1, 2)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_another_precision_is_refused_and_changes_nothing(self, opq, dtype):
        fingerprint = opq.fingerprint
        with pytest.raises(InputError, match=r"torch\.autocast"):
            opq.to(dtype)
        assert opq.fingerprint == fingerprint

    @pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 16, 16, 3)])
    def test_encode_names_the_shape(self, opq, shape):
        with pytest.raises(InputError, match=r"\(B, 3, H, W\)"):
            opq.encode(torch.zeros(shape, dtype=torch.uint8))

    def test_encode_names_the_dtype(self, opq):
        with pytest.raises(InputError, match=r"torch\.float32"):
            opq.encode(torch.zeros(1, 3, 16, 16))

    def test_encode_names_sizes_that_fit(self, opq):
        with pytest.raises(InputError, match=r"multiples of 8.*20×33.*16×32.*24×40"):
            opq.encode(torch.zeros(1, 3, 20, 33, dtype=torch.uint8))

    def test_decode_names_the_shape_and_range(self, opq):
        with pytest.raises(InputError, match=r"\(B, 6, h, w\)"):
            opq.decode(torch.zeros(1, 5, 2, 2, dtype=torch.uint8))
        with pytest.raises(InputError, match="integer codes"):
            opq.decode(torch.zeros(1, 6, 2, 2))
        too_large = torch.zeros(1, 6, 2, 2, dtype=torch.int64)
        too_large[0, 0, 0, 0] = 256
        with pytest.raises(InputError, match=r"\[0, 255\], got \[0, 256\]"):
            opq.decode(too_large)


class TestEncode:
    def test_does_not_depend_on_the_batch(self, opq, unseen, codes):
        assert torch.equal(torch.cat([opq.encode(image[None]) for image in unseen]), codes)

    def test_no_images(self, opq):
        assert opq.encode(torch.zeros(0, 3, 16, 16, dtype=torch.uint8)).shape == (0, 6, 2, 2)

    @pytest.mark.parametrize("precision", ["high", "medium"])
    def test_does_not_depend_on_the_precision_around_it(self, opq, unseen, codes, precision):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(opq.encode(unseen), codes)
                decoded = opq.reconstruct(codes)
            assert torch.get_float32_matmul_precision() == precision
        finally:
            torch.set_float32_matmul_precision(before)
        assert torch.equal(decoded, opq.reconstruct(codes))

    def test_decoded_images_keep_their_codes(self, opq, codes):
        assert (opq.encode(opq.decode(codes)) == codes).float().mean() > 0.9


class TestDecodeSoft:
    def test_one_hot_equals_decode(self, opq, codes):
        soft = opq.decode_soft(one_hot(codes))
        assert torch.equal(soft, opq.reconstruct(codes))
        assert torch.equal(soft.round().clamp(0, 255).to(torch.uint8), opq.decode(codes))

    def test_takes_weights_of_mixed_precision(self, opq, codes):
        soft = opq.decode_soft(one_hot(codes).bfloat16())
        assert torch.equal(soft, opq.reconstruct(codes))

    @pytest.mark.parametrize("quantizer", ["OPQ-8-4-4", "PQ-12-4-4", "RQ-8-4-4"])
    def test_gradient(self, quantizer):
        codec = PatchCodec(quantizer, patch_size=4, codebook_size=16).double()
        generator = torch.Generator().manual_seed(0)
        for channel in codec.channels:
            channel.codewords.copy_(torch.randn(channel.codewords.shape, generator=generator))
        weights = torch.rand(1, codec.num_codes, 16, 1, 1, generator=generator).double()
        weights.requires_grad_()
        assert torch.autograd.gradcheck(codec.decode_soft, (weights,))


class TestFingerprint:
    def test_covers_every_array(self, opq):
        for name in opq.state_dict():
            changed = copy.deepcopy(opq)
            changed.state_dict()[name].view(-1)[0] += 1e-3
            assert changed.fingerprint != opq.fingerprint, name

    def test_covers_the_name_and_the_sizes(self):
        codecs = [
            PatchCodec("PQ-8-8-8"),
            PatchCodec("VQ-8-8-8"),
            PatchCodec("PQ-8-8-8", patch_size=4),
        ]
        assert len({codec.fingerprint for codec in codecs}) == 3

    def test_survives_a_journey(self, opq):
        travelled = PatchCodec("opq-32-8-8")
        travelled.load_state_dict(opq.state_dict())
        assert travelled.double().float().fingerprint == opq.fingerprint
        assert travelled.double().fingerprint == opq.fingerprint


def test_frozen(opq):
    assert not list(opq.parameters())
    assert not any(array.requires_grad for array in opq.state_dict().values())
