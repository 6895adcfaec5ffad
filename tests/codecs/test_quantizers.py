import numpy as np
import pytest
import torch

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.codecs.fitting.quantizers import fit_patch_codec, pseudo_ordinal_order, to_faiss
from lit_mbldm.codecs.patches import rgb_to_ycbcr, to_patches
from lit_mbldm.codecs.vector_quantized import ResidualCodebook, nearest_codewords
from lit_mbldm.data.sources.images import load_rgb, to_array
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import ordinality, psnr
from lit_mbldm.zoo import load_pretrained

# The last two have 3 and 5 sub-codebooks, which do not divide 64.
QUANTIZERS = [
    "VQ-8-8-8",
    "PQ-16-8-8",
    "PQ-32-16-8",
    "OPQ-32-8-8",
    "RQ-16-8-8",
    "RQ-24-8-8",
    "PQ-24-8-8",
    pytest.param("OPQ-24-8-40", marks=pytest.mark.slow),
]


def faiss_codes(codec: PatchCodec, images: torch.Tensor) -> list[np.ndarray]:
    patches = to_patches(rgb_to_ycbcr(images), codec.patch_size).flatten(1, 3).numpy()
    indexes = to_faiss(codec)
    return [i.sa_encode(np.ascontiguousarray(x)) for i, x in zip(indexes, patches, strict=True)]


def compare_with_faiss(codec: PatchCodec, images: torch.Tensor) -> tuple[int, int, float]:
    """Patches with another code than faiss gives, patches, and the largest decoding difference."""
    theirs = faiss_codes(codec, images)
    ours = codec.encode(images).permute(0, 2, 3, 1).flatten(0, 2).numpy()  # (N, S)
    differ = int((ours != np.concatenate(theirs, axis=1)).any(1).sum())
    theirs_decoded = [i.sa_decode(c) for i, c in zip(to_faiss(codec), theirs, strict=True)]
    indices = torch.from_numpy(np.concatenate(theirs, axis=1)).long()
    codewords = [book[indices[:, s]] for s, book in enumerate(codec.codebooks())]
    error = np.abs(codec.assemble(codewords).numpy() - np.stack(theirs_decoded)).max()
    return differ, len(ours), float(error)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_fits_round_trips_and_agrees_with_faiss(quantizer, images, unseen):
    codec = fit_patch_codec(images, quantizer, max_patches=2500)
    codes = codec.encode(unseen)
    assert codes.shape == (2, *codec.latent_shape(96, 128))
    assert psnr(unseen, codec.decode(codes)).min() > 20
    differ, total, error = compare_with_faiss(codec, unseen)
    assert differ <= max(1e-3 * total, 1)
    assert error < 1e-3


def agree_on_kodak(codec, folder, step):
    differ = total = 0
    for path in sorted((folder / "kodak").glob("*.png"))[::step]:
        image = torch.from_numpy(to_array(load_rgb(path.read_bytes())).copy())[None]
        found = compare_with_faiss(codec, image)
        differ, total = differ + found[0], total + found[1]
        assert found[2] < 1e-3
    assert total > 0
    assert differ <= 1e-3 * total


def test_the_shipped_codec_agrees_with_faiss_on_kodak(shared_data):
    agree_on_kodak(load_pretrained("opq-32-8-8"), shared_data, step=1)


@pytest.mark.parametrize("quantizer", ["VQ-8-8-8", "PQ-32-8-8", "RQ-32-8-8"])
def test_every_type_agrees_with_faiss_on_kodak(quantizer, images, shared_data):
    agree_on_kodak(fit_patch_codec(images, quantizer, max_patches=2500), shared_data, step=8)


@pytest.mark.parametrize("codebook_size", [2, 4, 16, 256])
def test_nearest_codewords_is_the_minimum_of_distances(codebook_size):
    generator = torch.Generator().manual_seed(0)
    x = 50 * torch.randn(3000, 3, 16, generator=generator)
    codewords = 50 * torch.randn(3, codebook_size, 16, generator=generator)
    distances = torch.cdist(x.transpose(0, 1).double(), codewords.double())  # (M, N, K)
    best, found = distances.min(2).values, nearest_codewords(x, codewords).long().t()
    chosen = distances.gather(2, found[..., None])[..., 0]
    assert torch.allclose(chosen, best, rtol=1e-4)
    assert (found == distances.argmin(2)).float().mean() > 0.999


def test_a_beam_is_no_worse_than_greedy(images, unseen):
    codec = fit_patch_codec(images, "RQ-32-8-8", max_patches=2500)
    x = to_patches(rgb_to_ycbcr(unseen), 8)[0].flatten(0, 2)
    channel = codec.channels[0]
    assert isinstance(channel, ResidualCodebook)

    def error(beam_size: int) -> float:
        channel.beam_size = beam_size
        codes = channel.encode(x).long()
        rebuilt = channel.assemble([book[codes[:, m]] for m, book in enumerate(channel.codewords)])
        return float((x - rebuilt).square().mean())

    assert error(5) < error(1)


def test_same_seed_same_codec(images):
    def fingerprint(seed: int) -> str:
        return fit_patch_codec(images, "OPQ-16-8-8", max_patches=2000, seed=seed).fingerprint

    assert fingerprint(0) == fingerprint(0)
    assert fingerprint(0) != fingerprint(1)


def test_no_more_patches_than_asked_and_no_fewer_than_codewords(images):
    with pytest.raises(InputError, match=r"256 codewords needs.*hold 255"):
        fit_patch_codec(images, "VQ-8-8-8", max_patches=255)
    with pytest.raises(InputError, match="No image is as large as one 8×8 patch"):
        fit_patch_codec([images[0][:, :7]], "VQ-8-8-8")


def test_smaller_patches_and_codebooks(images, unseen):
    codec = fit_patch_codec(images, "PQ-8-4-4", patch_size=4, codebook_size=16, max_patches=2000)
    codes = codec.encode(unseen)
    assert codes.shape == (2, 4, 24, 32)
    assert codes.max() < 16
    assert psnr(unseen, codec.decode(codes)).min() > 18


class TestPseudoOrdinality:
    def test_projections_descend_and_sign_is_fixed(self):
        line = torch.tensor([[0.1, -1.0, 0.0]])
        places = torch.tensor([3.0, -1.0, 2.0, 0.5])
        order = pseudo_ordinal_order(places[:, None] * line)
        assert order.tolist() == [1, 3, 2, 0]  # the largest component, -1, is made positive

    def test_neighbours_by_index_are_neighbours_in_space(self, opq, unsorted_opq):
        for sorted_book, book in zip(opq.codebooks(), unsorted_opq.codebooks(), strict=True):
            near, far = ordinality(sorted_book, (1, 128))
            assert near < 0.9
            assert near < far
            assert near < ordinality(book, (1,))[0] - 0.1

    def test_sorting_changes_no_image(self, opq, unsorted_opq, unseen):
        assert unsorted_opq.fingerprint != opq.fingerprint
        before = unsorted_opq.decode(unsorted_opq.encode(unseen))
        after = opq.decode(opq.encode(unseen))
        assert (before != after).float().mean() < 1e-3  # ties may fall the other way
