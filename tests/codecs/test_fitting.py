"""Fitted codecs of every kind: as faiss codes, ordered, reproducible, better than what is less."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_mbldm.codecs import ImageCodec, JointCodec
from lit_mbldm.codecs.fitting.fit import fit_codec
from lit_mbldm.codecs.fitting.joint import balanced_directions, fit_joint_codec, fit_rotated
from lit_mbldm.codecs.fitting.quantizers import fit_patch_codec, pseudo_ordinal_order, to_faiss
from lit_mbldm.codecs.patches import rgb_to_ycbcr, to_patches
from lit_mbldm.codecs.vector_quantized import ProductCodebook, ResidualCodebook, nearest_codewords
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import ordinality, psnr
from lit_mbldm.zoo import load_pretrained

SMALL: dict[str, Any] = {"patch_size": 4, "codebook_size": 16, "max_patches": 1000}


def fit(images: list[Tensor], name: str, **arguments: Any) -> Any:
    kind = fit_joint_codec if name.startswith("JPQ") else fit_patch_codec
    return kind(images, name, **arguments)


def assert_codes_are_those_of_faiss(codec: ImageCodec, images: list[Tensor]) -> None:
    """But for one patch of a thousand, where two codewords are as near."""
    differ = total = 0
    for image in images:
        vectors = codec.to_vectors(image)
        channels = vectors.flatten(1, 3) if len(vectors) == 3 else vectors.flatten(0, 2)[None]
        pairs = [(i, i.sa_encode(x.contiguous().numpy()))
                 for i, x in zip(to_faiss(codec), channels, strict=True)]  # fmt: skip
        theirs = np.concatenate([codes for _, codes in pairs], axis=1)
        ours = codec.encode(image).permute(0, 2, 3, 1).flatten(0, 2).numpy()  # (N, S)
        codewords = [book[theirs[:, s].tolist()] for s, book in enumerate(codec.codebooks())]
        decoded = np.stack([index.sa_decode(codes) for index, codes in pairs])
        assert np.abs(codec.assemble(codewords).numpy() - decoded).max() < 1e-3
        differ, total = differ + int((ours != theirs).any(1).sum()), total + len(ours)
    assert differ <= max(1e-3 * total, 1)


@pytest.mark.parametrize(
    "name",
    # PQ-24 and OPQ-…-40 have 3 and 5 sub-codebooks, which do not divide 64
    ["VQ-8-8-8", "PQ-16-8-8", "PQ-32-16-8", "OPQ-32-8-8", "RQ-16-8-8", "RQ-24-8-8", "PQ-24-8-8",
     pytest.param("OPQ-24-8-40", marks=pytest.mark.slow), "JPQ-48"],
)  # fmt: skip
def test_a_fit_round_trips_and_agrees_with_faiss(
    name: str, images: list[Tensor], unseen: Tensor
) -> None:
    codec = fit_codec(images, name, max_patches=2500)
    codes = codec.encode(unseen)
    assert codes.shape == (2, *codec.latent_shape(96, 128))
    assert psnr(unseen, codec.decode(codes)).min() > 20
    if not isinstance(codec, JointCodec):
        assert (codec.encode(codec.decode(codes)) == codes).float().mean() > 0.8
    assert_codes_are_those_of_faiss(codec, [unseen])


@pytest.mark.parametrize(
    ("name", "step"),
    [("opq-32-8-8", 1), ("jpq-48", 4), ("VQ-8-8-8", 8), ("PQ-32-8-8", 8), ("RQ-32-8-8", 8)],
)
def test_shipped_and_fitted_codecs_agree_with_faiss_on_photographs(
    name: str, step: int, images: list[Tensor], kodak: list[Tensor]
) -> None:
    codec = load_pretrained(name) if name.islower() else fit(images, name, max_patches=2500)
    assert_codes_are_those_of_faiss(codec, kodak[::step])


def test_the_joint_codec_gains_a_decibel_and_a_half_on_photographs(kodak: list[Tensor]) -> None:
    found = [
        [psnr(image, codec.decode(codec.encode(image))) for image in kodak[::6]]
        for codec in (load_pretrained("jpq-48"), load_pretrained("opq-32-8-8"))
    ]
    assert float((torch.cat(found[0]) - torch.cat(found[1])).mean()) > 1.3


@pytest.mark.parametrize("codebook_size", [2, 4, 16, 256])
def test_nearest_codewords_is_the_minimum_of_distances(codebook_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 50 * torch.randn(3000, 3, 16, generator=generator)
    codewords = 50 * torch.randn(3, codebook_size, 16, generator=generator)
    distances = torch.cdist(x.transpose(0, 1).double(), codewords.double())  # (M, N, K)
    best, found = distances.min(2).values, nearest_codewords(x, codewords).long().t()
    chosen = distances.gather(2, found[..., None])[..., 0]
    assert torch.allclose(chosen, best, rtol=1e-4)
    assert (found == distances.argmin(2)).float().mean() > 0.999


def code_error(codebook: ProductCodebook | ResidualCodebook, x: Tensor) -> float:
    codes = codebook.encode(x).long()
    rebuilt = codebook.assemble([book[codes[:, m]] for m, book in enumerate(codebook.codewords)])
    return float((x - rebuilt).square().mean())


def test_a_beam_is_no_worse_than_greedy(images: list[Tensor], unseen: Tensor) -> None:
    channel = fit_patch_codec(images, "RQ-32-8-8", max_patches=2500).channels[0]
    x, errors = to_patches(rgb_to_ycbcr(unseen), 8)[0].flatten(0, 2), []
    for beam_size in (5, 1):
        channel.beam_size = beam_size
        errors.append(code_error(channel, x))
    assert errors[0] < errors[1]


def test_turns_of_rotation_and_codebooks_lower_the_error(images: list[Tensor]) -> None:
    x, errors = torch.cat([JointCodec().to_vectors(i[None]).flatten(0, 2) for i in images]), []
    for turns in (20, 4, 0):
        codebook = ProductCodebook(192, 4, 64, rotated=True, sub_dim=24)
        fit_rotated(codebook, x, seed=0, alternations=turns)
        errors.append(code_error(codebook, x))
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("name", ["OPQ-8-4-4", "JPQ-16"])
def test_same_seed_same_codec(name: str, images: list[Tensor]) -> None:
    found = [fit(images, name, seed=seed, **SMALL).fingerprint for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("name", "side", "arguments", "message"),
    [
        ("VQ-8-8-8", 96, {"max_patches": 255}, "256 codewords needs.*hold 255"),
        ("JPQ-48", 96, {"max_patches": 255}, "256 codewords needs.*hold 255"),
        ("VQ-8-8-8", 7, {}, "No image is as large as one 8×8 patch"),
        ("JPQ-48", 15, {}, "No image is as large as one 16×16 patch"),
        ("JPQ-48", 7, {"lapped": False}, "No image is as large as one 8×8 patch"),
        ("LSQ-48", 96, {}, "or JPQ-"),
    ],
)
def test_names_and_images_that_cannot_be_fitted(
    name: str, side: int, arguments: dict[str, int], message: str, images: list[Tensor]
) -> None:
    with pytest.raises(InputError, match=message):
        fit([image[:, :side] for image in images], name, **arguments)


def test_projections_descend_and_their_sign_is_fixed() -> None:
    line, places = torch.tensor([[0.1, -1.0, 0.0]]), torch.tensor([3.0, -1.0, 2.0, 0.5])
    order = pseudo_ordinal_order(places[:, None] * line)
    assert order.tolist() == [1, 3, 2, 0]  # the largest component, -1, is made positive


@pytest.mark.parametrize(
    ("name", "limit", "gain", "changed"),
    [("OPQ-32-8-8", 0.9, 0.1, 1e-3), ("JPQ-48", 0.97, 0.0, 1e-2)],
)
def test_codebooks_are_in_pseudo_ordinal_order_which_changes_no_image(
    name, limit, gain, changed, images, unseen
):
    ordered, plain = (fit(images, name, max_patches=2500, sort=sort) for sort in (True, False))
    assert plain.fingerprint != ordered.fingerprint
    for sorted_book, book in zip(ordered.codebooks(), plain.codebooks(), strict=True):
        near, far = ordinality(sorted_book, (1, 128))
        assert near < min(limit, far, ordinality(book, (1,))[0] - gain)
    before, after = (codec.decode(codec.encode(unseen)) for codec in (plain, ordered))
    assert (before != after).float().mean() < changed  # ties may fall the other way


def test_the_joint_rotation_is_orthonormal_and_errors_are_nearly_those_of_images(
    jpq: JointCodec, unseen: Tensor
) -> None:
    R, codes = jpq.codebook.rotation, jpq.encode(unseen).long()
    assert R.shape == (96, 192)
    assert torch.allclose(R @ R.t(), torch.eye(96), atol=1e-5)
    pixels = (jpq.reconstruct(codes) - unseen.float()).square().sum()
    vectors = (jpq.look_up(codes) - jpq.to_vectors(unseen)).square().sum()
    assert 0.8 < float(pixels / vectors) < 1.25


def test_directions_are_principal_and_products_of_variances_are_equal() -> None:
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


@pytest.mark.parametrize("bits", [24, 64])
def test_more_bits_more_decibels(
    bits: int, jpq: ImageCodec, images: list[Tensor], unseen: Tensor
) -> None:
    codec = fit_codec(images, f"JPQ-{bits}", max_patches=2500)
    found, at_48 = (psnr(unseen, c.decode(c.encode(unseen))).mean() for c in (codec, jpq))
    assert (found > at_48) == (bits > 48)


@pytest.mark.parametrize(
    "row",
    [torch.full((40,), 100), 6 * torch.arange(40), 255 * (torch.arange(40) % 2)],
    ids=["grey", "ramp", "stripes"],
)
def test_images_of_pure_shapes_fit_as_well(row: Tensor) -> None:
    image = row.expand(3, 40, 40).to(torch.uint8)
    codec = fit([image], "JPQ-16", **SMALL)
    assert psnr(image, codec.decode(codec.encode(image[None]))[0]) > 25
    assert torch.linalg.cond(codec.lapping) < 10
