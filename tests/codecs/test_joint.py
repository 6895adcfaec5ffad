import copy

import pytest
import torch

from lit_mbldm.codecs import ImageCodec, JointCodec
from lit_mbldm.codecs.joint import num_joint_codes
from lit_mbldm.errors import InputError


def random_codec(lapped: bool = True, **arguments) -> JointCodec:
    """16 codewords in each of 4 codebooks, patches of 4×4 pixels."""
    codec = JointCodec("JPQ-16", patch_size=4, codebook_size=16, lapped=lapped, **arguments)
    generator = torch.Generator().manual_seed(0)
    rotation = codec.codebook.rotation
    basis = torch.linalg.qr(torch.randn(rotation.shape[::-1], generator=generator))[0]
    rotation.copy_(basis.t())
    codec.codebook.codewords.copy_(
        60 * torch.randn(codec.codebook.codewords.shape, generator=generator)
    )
    if codec.lapping is not None:
        codec.lapping.add_(0.3 * torch.randn(2, 2, generator=generator))
    return codec


def one_hot(codes: torch.Tensor, size: int = 16) -> torch.Tensor:
    return torch.nn.functional.one_hot(codes.long(), size).float().movedim(-1, 2)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, 3, 12, 20), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("lapped", [True, False])
def test_codes_are_those_of_the_vectors(images, lapped):
    codec = random_codec(lapped)
    found = codec.encode(images)
    expected = codec.quantize(codec.to_vectors(images))  # (Bhw, S)
    assert torch.equal(found.permute(0, 2, 3, 1).flatten(0, 2), expected)


class TestName:
    def test_parses_any_case(self):
        assert num_joint_codes("jpq-48") == 6
        assert num_joint_codes("JPQ-12", codebook_size=16) == 3

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("JPQ", "Expected JPQ"),
            ("JPQ-32-8-8", "Expected JPQ"),
            ("OPQ-32-8-8", "Expected JPQ"),
            ("JPQ-50", "positive multiple of 8"),
            ("JPQ-0", "positive multiple of 8"),
        ],
    )
    def test_refuses(self, name, message):
        with pytest.raises(InputError, match=message):
            JointCodec(name)

    def test_refuses_sizes_that_do_not_fit_each_other(self):
        with pytest.raises(InputError, match="sub_dim must be from 1 to 32, not 33"):
            JointCodec("JPQ-48", sub_dim=33)
        with pytest.raises(InputError, match="sub_dim must be from 1 to 32, not 0"):
            JointCodec("JPQ-48", sub_dim=0)
        with pytest.raises(InputError, match=r"13 codebooks, more than the 12 numbers .* 2×2"):
            JointCodec("JPQ-104", patch_size=2)
        with pytest.raises(InputError, match=r"even side, not 7; or use lapped: false"):
            JointCodec("JPQ-48", patch_size=7)
        with pytest.raises(InputError, match="power of two from 2 to 256"):
            JointCodec("JPQ-48", codebook_size=512)
        assert JointCodec("JPQ-48", patch_size=4).sub_dim == 8  # 48 numbers among 6
        assert JointCodec("JPQ-48", patch_size=7, lapped=False).latent_shape(14, 7) == (6, 2, 1)


@pytest.mark.parametrize("bits", [8, 24, 32, 64, 96])
def test_any_bits(bits):
    codec = JointCodec(f"JPQ-{bits}")
    assert isinstance(codec, ImageCodec)
    assert codec.num_codes == len(codec.codebooks()) == bits // 8
    assert codec.bits_per_pixel == bits / 64
    assert codec.sub_dim == codec.codebooks()[0].shape[1] == 16
    image = torch.zeros(1, 3, 16, 24, dtype=torch.uint8)
    assert codec.encode(image).shape == (1, *codec.latent_shape(16, 24))
    assert codec.decode(codec.encode(image)).shape == image.shape


@pytest.mark.parametrize("lapped", [False, True])
def test_vectors_and_images_are_each_other_s_inverse(lapped, images):
    codec = random_codec(lapped)
    vectors = codec.to_vectors(images)
    assert vectors.shape == (2, 3, 5, 48)
    assert torch.allclose(codec.to_images(vectors), images.float(), atol=1e-3)


def test_without_lapping_a_patch_is_its_pixels(images):
    vector = random_codec(lapped=False).to_vectors(images)[1, 1, 2]
    assert torch.equal(vector.view(3, 4, 4), images[1, :, 4:8, 8:12] - 128.0)


@pytest.mark.parametrize("sub_dim", [12, 5])
def test_the_error_of_images_is_that_of_vectors_without_lapping(sub_dim, images):
    codec = random_codec(lapped=False, sub_dim=sub_dim)
    codes = codec.encode(images).long()
    pixels = (codec.reconstruct(codes) - images.float()).square().sum()
    vectors = (codec.look_up(codes) - codec.to_vectors(images)).square().sum()
    assert torch.allclose(pixels, vectors, rtol=1e-4)
    coordinates = codec.to_vectors(images) @ codec.codebook.rotation.t()
    chosen = torch.cat([book[codes[:, m]] for m, book in enumerate(codec.codebooks())], dim=-1)
    lost = codec.to_vectors(images).square().sum() - coordinates.square().sum()
    assert torch.allclose((chosen - coordinates).square().sum() + lost, pixels, rtol=1e-4)


@pytest.mark.parametrize("lapped", [False, True])
def test_image_error_is_the_distance_of_decoded_images(lapped, images):
    codec = random_codec(lapped, sub_dim=12)
    weights = torch.randn(2, 4, 16, 3, 5).softmax(2)
    for target in (codec.look_up(codec.encode(images).long()), codec.to_vectors(images)):
        difference = (codec.decode_soft(weights) - codec.to_images(target)) / 127.5
        found = codec.image_error(codec.soft_codewords(weights), target)
        assert torch.allclose(found, difference.square().mean((1, 2, 3)), rtol=1e-4)
    expected = ((codec.decode_soft(weights) - images) / 127.5).square().mean((1, 2, 3))
    assert torch.allclose(found, expected, rtol=1e-4)


def test_one_hot_weights_decode_as_codes(images):
    codec = random_codec()
    codes = codec.encode(images)
    soft = codec.decode_soft(one_hot(codes))
    assert torch.equal(soft, codec.reconstruct(codes))
    assert torch.equal(soft.round().clamp(0, 255).to(torch.uint8), codec.decode(codes))


@pytest.mark.parametrize("lapped", [False, True])
def test_gradient(lapped):
    codec = random_codec(lapped).double()
    weights = torch.rand(1, 4, 16, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    weights.requires_grad_()
    assert torch.autograd.gradcheck(codec.decode_soft, (weights,), fast_mode=True)


def test_it_does_not_depend_on_the_batch_nor_on_the_precision_around_it(images):
    codec = random_codec()
    codes = codec.encode(images)
    assert torch.equal(torch.cat([codec.encode(image[None]) for image in images]), codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(images), codes)
        assert torch.equal(codec.reconstruct(codes), codec.reconstruct(codes.clone()))
    empty = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert codec.encode(empty).shape == (0, 4, 2, 2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 20, 33, dtype=torch.uint8), r"multiples of 8.*20×33.*16×32.*24×40"),
        (torch.zeros(1, 3, 16, 16), r"torch\.float32"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"\(B, 3, H, W\)"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(InputError, match=message):
        JointCodec().encode(image)


def test_fingerprint_covers_every_array_and_argument():
    codec = random_codec()
    for name in codec.state_dict():
        changed = copy.deepcopy(codec)
        changed.state_dict()[name].view(-1)[0] += 1e-3
        assert changed.fingerprint != codec.fingerprint, name
    others = [
        JointCodec(),
        JointCodec(lapped=False),
        JointCodec(sub_dim=17),
        JointCodec("JPQ-40"),
        JointCodec(patch_size=16),
    ]
    assert len({other.fingerprint for other in others}) == len(others)
    assert not any(array.requires_grad for array in codec.state_dict().values())
