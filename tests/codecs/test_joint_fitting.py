import numpy as np
import pytest
import torch
from torch import Tensor

from lit_mbldm.codecs import JointCodec, PatchCodec
from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.codecs.fitting.joint import balanced_directions, fit_joint_codec, fit_rotated
from lit_mbldm.codecs.fitting.quantizers import to_faiss
from lit_mbldm.codecs.vector_quantized import ProductCodebook
from lit_mbldm.data.sources.images import load_rgb, to_array
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import ordinality, psnr
from lit_mbldm.zoo import load_pretrained


@pytest.fixture(scope="module")
def jpq(one_thread: None, images: list[Tensor]) -> JointCodec:
    return fit_joint_codec(images, "JPQ-48", max_patches=2500)


def compare_with_faiss(codec: JointCodec, images: Tensor) -> tuple[int, int]:
    """Patches with another code than faiss gives, and patches."""
    (index,) = to_faiss(codec)
    vectors = codec.to_vectors(images).flatten(0, 2)
    theirs = index.sa_encode(np.ascontiguousarray(vectors.numpy()))
    ours = codec.encode(images).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    decoded = codec.assemble([b[ours[:, m].tolist()] for m, b in enumerate(codec.codebooks())])
    assert np.abs(index.sa_decode(ours) - decoded.numpy()).max() < 1e-3
    return int((ours != theirs).any(1).sum()), len(ours)


def test_it_agrees_with_faiss(jpq, unseen):
    differ, total = compare_with_faiss(jpq, unseen)
    assert differ <= max(1e-3 * total, 1)


def test_the_shipped_codec_agrees_with_faiss_on_kodak(shared_data):
    codec, differ, total = load_pretrained("jpq-48"), 0, 0
    for path in sorted((shared_data / "kodak").glob("*.png"))[::4]:
        image = torch.from_numpy(to_array(load_rgb(path.read_bytes())).copy())[None]
        found = compare_with_faiss(codec, image)
        differ, total = differ + found[0], total + found[1]
    assert total > 0
    assert differ <= 1e-3 * total


def test_the_shipped_codec_gains_a_decibel_and_a_half_on_photographs(shared_data):
    gains = []
    for path in sorted((shared_data / "kodak").glob("*.png"))[::6]:
        image = torch.from_numpy(to_array(load_rgb(path.read_bytes())).copy())
        found = [
            psnr(image, codec.decode(codec.encode(image[None]))[0])
            for codec in (load_pretrained("jpq-48"), load_pretrained("opq-32-8-8"))
        ]
        gains.append(found[0] - found[1])
    assert float(torch.stack(gains).mean()) > 1.3


def test_the_rotation_is_orthonormal(jpq):
    R = jpq.codebook.rotation
    assert R.shape == (96, 192)
    assert torch.allclose(R @ R.t(), torch.eye(96), atol=1e-5)


def test_errors_of_vectors_are_nearly_those_of_images(jpq, unseen):
    codes = jpq.encode(unseen).long()
    pixels = (jpq.reconstruct(codes) - unseen.float()).square().sum()
    vectors = (jpq.look_up(codes) - jpq.to_vectors(unseen)).square().sum()
    assert 0.8 < float(pixels / vectors) < 1.25


def test_directions_are_principal_and_products_of_variances_are_equal():
    generator = torch.Generator().manual_seed(0)
    scales = 0.8 ** torch.arange(24.0)
    basis = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    x = torch.randn(4000, 24, generator=generator) * scales @ basis
    R = balanced_directions(x, 3, 6)
    assert torch.allclose(R @ R.t(), torch.eye(18), atol=1e-5)
    covariance = torch.cov((x @ R.t()).t())
    deviations = covariance.diagonal().sqrt()
    correlations = covariance / deviations / deviations[:, None] - torch.eye(18)
    assert correlations.abs().max() < 1e-3
    steps = deviations.view(3, 6).log().sum(1) / np.log(0.8)
    assert steps.max() - steps.min() < 2  # of 51 on average
    kept = torch.linalg.eigvalsh(torch.cov(x.t())).flip(0)[:18]
    assert torch.allclose(covariance.diagonal().sort(descending=True).values, kept, rtol=1e-3)


def test_turns_of_rotation_and_codebooks_lower_the_error(images):
    x = torch.cat([JointCodec().to_vectors(image[None]).flatten(0, 2) for image in images])

    def error(turns: int) -> float:
        codebook = ProductCodebook(192, 4, 64, rotated=True, sub_dim=24)
        fit_rotated(codebook, x, seed=0, alternations=turns)
        codes = codebook.encode(x).long()
        decoded = codebook.assemble([b[codes[:, m]] for m, b in enumerate(codebook.codewords)])
        return float((decoded - x).square().mean())

    assert error(20) < error(4) < error(0)


def test_codebooks_are_in_pseudo_ordinal_order(jpq, images, unseen):
    unsorted = fit_joint_codec(images, "JPQ-48", max_patches=2500, sort=False)
    for sorted_book, book in zip(jpq.codebooks(), unsorted.codebooks(), strict=True):
        near, far = ordinality(sorted_book, (1, 128))
        assert near < 0.97
        assert near < far
        assert near < ordinality(book, (1,))[0]
    before, after = (codec.decode(codec.encode(unseen)) for codec in (unsorted, jpq))
    assert (before != after).float().mean() < 1e-2  # ties may fall the other way


@pytest.mark.parametrize("bits", [24, 64])
def test_more_bits_more_decibels(bits, jpq, images, unseen):
    codec = fit_joint_codec(images, f"JPQ-{bits}", max_patches=2500)
    found, at_48 = (psnr(unseen, c.decode(c.encode(unseen))).mean() for c in (codec, jpq))
    assert (found > at_48) == (bits > 48)


def test_same_seed_same_codec(images):
    def fingerprint(seed: int) -> str:
        small = {"patch_size": 4, "codebook_size": 16, "max_patches": 1000}
        return fit_joint_codec(images, "JPQ-16", seed=seed, **small).fingerprint

    assert fingerprint(0) == fingerprint(0)
    assert fingerprint(0) != fingerprint(1)


def test_too_few_patches(images):
    with pytest.raises(InputError, match=r"256 codewords needs.*hold 255"):
        fit_joint_codec(images, max_patches=255)
    with pytest.raises(InputError, match="No image is as large as one 16×16 patch"):
        fit_joint_codec([images[0][:, :15]])
    with pytest.raises(InputError, match="No image is as large as one 8×8 patch"):
        fit_joint_codec([images[0][:, :7]], lapped=False)


@pytest.mark.parametrize(
    "row",
    [torch.full((40,), 100), 6 * torch.arange(40), 255 * (torch.arange(40) % 2)],
    ids=["grey", "ramp", "stripes"],
)
def test_images_of_pure_shapes_fit_as_well(row):
    image = row.expand(3, 40, 40).to(torch.uint8)
    codec = fit_joint_codec([image], "JPQ-16", patch_size=4, codebook_size=16, max_patches=500)
    assert psnr(image, codec.decode(codec.encode(image[None]))[0]) > 25
    assert torch.linalg.cond(codec.lapping) < 10


def test_fit_codec_goes_by_the_name(images):
    assert isinstance(fit_codec(images, "jpq-8", max_patches=300), JointCodec)
    assert isinstance(fit_codec(images, "vq-8-8-8", max_patches=300), PatchCodec)
    with pytest.raises(InputError, match="or JPQ-"):
        fit_codec(images, "LSQ-48", max_patches=300)
