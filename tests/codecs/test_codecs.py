"""What every codec promises, on codecs of random arrays."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs import ImageCodec, JointCodec, PatchCodec, PixelCodec
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError

EVERY_CODEC = pytest.mark.parametrize(
    "kind", ["OPQ-8-4-4", "PQ-12-4-4", "RQ-8-4-4", "lapped", "not lapped"]
)


def random_codec(kind: str, **arguments: Any) -> VectorQuantizedCodec:
    """16 codewords in each codebook, patches of 4×4 pixels."""
    arguments |= {"patch_size": 4, "codebook_size": 16}
    if kind.endswith("lapped"):
        codec = JointCodec("JPQ-16", lapped=kind == "lapped", **arguments)
    else:
        codec = PatchCodec(kind, **arguments)
    generator = torch.Generator().manual_seed(0)
    for name, array in codec.state_dict().items():
        drawn = torch.randn(array.shape, generator=generator)
        if name.endswith("rotation"):
            array.copy_(torch.linalg.qr(drawn.t())[0].t())
        elif name.endswith("codewords"):
            array.copy_(60 * drawn)
        else:
            array.add_(0.3 * drawn)
    return codec


def one_hot(codes: Tensor) -> Tensor:
    return F.one_hot(codes.long(), 16).float().movedim(-1, 2)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, 3, 12, 20), generator=generator, dtype=torch.uint8)


@EVERY_CODEC
def test_vectors_lead_to_codes_and_back_to_images(kind: str, images: Tensor) -> None:
    codec = random_codec(kind)
    vectors, codes = codec.to_vectors(images), codec.encode(images)
    assert codes.shape == (2, *codec.latent_shape(12, 20)) == (2, codec.num_codes, 3, 5)
    assert torch.equal(codes.permute(0, 2, 3, 1).flatten(0, 2), codec.quantize(vectors))
    assert torch.allclose(codec.to_images(vectors), images.float(), atol=2e-2)


@EVERY_CODEC
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_codes_depend_neither_on_the_batch_nor_on_the_precision_around_it(
    kind: str, precision: str, images: Tensor
) -> None:
    codec = random_codec(kind)
    codes = codec.encode(images)
    assert torch.equal(torch.cat([codec.encode(image[None]) for image in images]), codes)
    assert codec.encode(images[:0]).shape == (0, *codes.shape[1:])
    decoded, before = codec.reconstruct(codes), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(codec.encode(images), codes)
            assert torch.equal(codec.reconstruct(codes), decoded)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@EVERY_CODEC
def test_one_hot_weights_decode_as_codes(kind: str, images: Tensor) -> None:
    codec = random_codec(kind)
    codes = codec.encode(images)
    for weights in (one_hot(codes), one_hot(codes).bfloat16()):
        soft = codec.decode_soft(weights)
        assert torch.equal(soft, codec.reconstruct(codes))
        assert torch.equal(soft.round().clamp(0, 255).to(torch.uint8), codec.decode(codes))


@EVERY_CODEC
def test_gradient(kind: str) -> None:
    codec = random_codec(kind).double()
    torch.manual_seed(0)
    weights = torch.rand(1, codec.num_codes, 16, 1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(codec.decode_soft, (weights,), fast_mode=True)


@EVERY_CODEC
def test_codeword_error_is_the_distance_of_decoded_images(kind: str, images: Tensor) -> None:
    codec = random_codec(kind)
    weights = torch.randn(2, codec.num_codes, 16, 3, 5).softmax(2)
    codes = codec.encode(images).long()
    decoded = codec.reconstruct(codes)
    for given, target in ((None, decoded), (images, images)):
        difference = (codec.decode_soft(weights) - target) / 127.5
        found = codec.codeword_error(codec.soft_codewords(weights), codes, given)
        assert torch.allclose(found, difference.square().mean((1, 2, 3)), rtol=1e-4)


@EVERY_CODEC
def test_the_fingerprint_covers_every_array_and_survives_a_journey(kind: str) -> None:
    codec = random_codec(kind)
    assert not list(codec.parameters())
    for name, array in codec.state_dict().items():
        assert not array.requires_grad
        changed = copy.deepcopy(codec)
        changed.state_dict()[name].view(-1)[0] += 1e-3
        assert changed.fingerprint != codec.fingerprint, name
    changed.load_state_dict(codec.state_dict())
    assert changed.double().fingerprint == codec.fingerprint
    assert changed.float().fingerprint == codec.fingerprint
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(InputError, match=r"torch\.autocast"):
            changed.to(dtype)
    assert changed.fingerprint == codec.fingerprint


def test_the_fingerprint_covers_every_argument() -> None:
    codecs = [
        *(PatchCodec(name) for name in ("PQ-8-8-8", "VQ-8-8-8")),
        PatchCodec("PQ-8-8-8", patch_size=4),
        *(JointCodec(**a) for a in ({}, {"lapped": False}, {"sub_dim": 17}, {"patch_size": 16})),
        JointCodec("JPQ-40"),
    ]
    assert len({codec.fingerprint for codec in codecs}) == len(codecs)


def test_names_and_rates() -> None:
    assert PatchCodec("PQ-8-4-4", codebook_size=16).code_names == ["Y0", "Y1", "Cb", "Cr"]
    codec = PatchCodec("opq-32-8-8")
    assert (codec.quantizer, codec.bits_per_pixel) == ("OPQ-32-8-8", 0.75)
    assert codec.latent_shape(512, 512) == (6, 64, 64)
    assert PatchCodec("VQ-8-8-8").bits_per_pixel == 0.375
    assert JointCodec("JPQ-48", patch_size=4).sub_dim == 8  # 48 numbers among 6
    assert JointCodec("JPQ-48", patch_size=7, lapped=False).latent_shape(14, 7) == (6, 2, 1)


@pytest.mark.parametrize("bits", [8, 24, 32, 64, 96])
def test_any_bits_of_a_joint_codec(bits: int) -> None:
    codec = JointCodec(f"jpq-{bits}")
    assert codec.num_codes == len(codec.codebooks()) == bits // 8
    assert codec.bits_per_pixel == bits / 64
    assert codec.sub_dim == codec.codebooks()[0].shape[1] == 16
    image = torch.zeros(1, 3, 16, 24, dtype=torch.uint8)
    assert codec.decode(codec.encode(image)).shape == image.shape


@pytest.mark.parametrize(
    ("codec", "name", "arguments", "message"),
    [
        *((PatchCodec, n, {}, "Expected a quantiser") for n in ("LSQ-32-8-8", "OPQ-32-8", "")),
        *((PatchCodec, n, {}, "Expected a quantiser") for n in ("OPQ-32-8-8-8", "OPQ--8-8-8")),
        *((PatchCodec, n, {}, "positive multiples of 8") for n in ("OPQ-30-8-8", "OPQ-0-8-8")),
        (PatchCodec, "VQ-16-8-8", {}, "VQ has one codebook"),
        *((JointCodec, n, {}, "Expected JPQ") for n in ("JPQ", "JPQ-32-8-8", "OPQ-32-8-8")),
        *((JointCodec, n, {}, "positive multiples of 8") for n in ("JPQ-50", "JPQ-0")),
        (JointCodec, "JPQ-48", {"sub_dim": 33}, "sub_dim must be from 1 to 32, not 33"),
        (JointCodec, "JPQ-48", {"sub_dim": 0}, "sub_dim must be from 1 to 32, not 0"),
        (JointCodec, "JPQ-104", {"patch_size": 2}, r"13 codebooks, more than the 12 .* 2×2"),
        (JointCodec, "JPQ-48", {"patch_size": 7}, r"even side, not 7; or use lapped: false"),
        *(
            (PatchCodec, "PQ-8-8-8", {"codebook_size": size}, "power of two from 2 to 256")
            for size in (0, 1, 3, 512)
        ),
    ],
)
def test_names_and_sizes_that_do_not_fit(
    codec: type[ImageCodec], name: str, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        codec(name, **arguments)


def test_what_is_no_tensor_is_told_how_it_becomes_one(tmp_path: Path) -> None:
    path, image = tmp_path / "photo.png", PIL.Image.new("RGB", (16, 8), "red")
    image.save(path)
    for value in (str(path), image, np.zeros((1, 3, 8, 8)), [1], None, path):
        with pytest.raises(InputError, match=r"got a .*torch\.from_numpy"):
            PatchCodec().decode(value)


def test_files_pillow_images_and_arrays_are_encoded_as_tensors_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(array)
    image.save(tmp_path / "photo.png")
    codec = PixelCodec()
    expected = torch.from_numpy(array).permute(2, 0, 1)[None]
    path = tmp_path / "photo.png"
    for value in (path, str(path), image, array, array[None], [image], (path,)):
        assert torch.equal(codec.encode(value), expected)
    assert torch.equal(codec.encode([path, image]), expected.repeat(2, 1, 1, 1))
    grey = codec.encode([array[..., 0], PIL.Image.fromarray(array[..., 0])])
    assert torch.equal(grey, expected[:, :1].expand(2, 3, -1, -1))
    clear = np.concatenate([array, np.zeros_like(array[..., :1])], axis=2)
    assert (codec.encode(clear) == 255).all()  # what is transparent lies on white


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "a NoneType"),
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 5), np.uint8), r"uint8 of shape \(8, 8, 5\)"),
        ([], "one size, got none"),
        ([PIL.Image.new("L", (8, 8)), PIL.Image.new("L", (8, 16))], "16×8, 8×8"),
        (__file__, "test_codecs.py cannot be used: not an image"),
        (torch.zeros(1, 1, 8, 8).byte(), "be they grey, RGB or RGBA"),
        (torch.zeros(1, 4, 8, 8).byte(), "be they grey, RGB or RGBA"),
    ],
)
def test_what_is_no_picture_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PixelCodec().encode(wrong)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 16, 16, 3, dtype=torch.uint8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 16, 16), r"torch\.float32"),
        (torch.zeros(1, 3, 20, 33, dtype=torch.uint8), r"of 8.*20×33.*16×32.*24×40"),
    ],
)
def test_images_of_another_shape_or_dtype(image: Tensor, message: str) -> None:
    for codec in (PatchCodec(), JointCodec()):
        with pytest.raises(InputError, match=message):
            codec.encode(image)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 5, 2, 2, dtype=torch.uint8), r"\(B, 6, h, w\)"),
        (torch.zeros(1, 6, 2, 2), "integer codes"),
        (256 * torch.eye(2).long().expand(1, 6, 2, 2), r"\[0, 255\], got \[0, 256\]"),
    ],
)
def test_codes_of_another_shape_dtype_or_range(codes: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PatchCodec().decode(codes)


@pytest.mark.parametrize("sub_dim", [12, 5])
def test_without_lapping_a_patch_is_its_pixels_and_errors_are_those_of_vectors(
    sub_dim: int, images: Tensor
) -> None:
    codec = random_codec("not lapped", sub_dim=sub_dim)
    given, codes = codec.to_vectors(images), codec.encode(images).long()
    assert torch.equal(given[1, 1, 2].view(3, 4, 4), images[1, :, 4:8, 8:12] - 128.0)
    pixels = (codec.reconstruct(codes) - images.float()).square().sum()
    assert torch.allclose((codec.look_up(codes) - given).square().sum(), pixels, rtol=1e-4)
    coordinates = given @ codec.codebook.rotation.t()
    chosen = torch.cat([book[codes[:, m]] for m, book in enumerate(codec.codebooks())], dim=-1)
    lost = given.square().sum() - coordinates.square().sum()
    assert torch.allclose((chosen - coordinates).square().sum() + lost, pixels, rtol=1e-4)
