import pytest
import torch

from lit_mbldm.codecs import IndexLatent, JointCodec, PatchCodec, PrincipalLatent
from lit_mbldm.codecs.latents import place_codewords
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


EITHER_CODEC = pytest.mark.parametrize("name", ["opq-32-8-8", "jpq-48"])


@EITHER_CODEC
@pytest.mark.parametrize("coordinates", [1, 2, 3])
def test_codes_survive_the_principal_latent(name, coordinates):
    codec, latent = load_pretrained(name), PrincipalLatent(coordinates)
    latent.use(codec)
    codes = every_code(6).expand(2, -1, -1, -1)
    z0 = latent.to_latent(codes)
    assert z0.shape == (2, latent.num_channels(6), 1, 256) == (2, 6 * coordinates, 1, 256)
    assert (z0.dtype, z0.abs().max()) == (torch.float32, 1)
    assert torch.equal(latent.to_codes(z0), codes)


@EITHER_CODEC
def test_one_coordinate_as_a_rank_is_the_index(name):
    latent = PrincipalLatent(1, ranks=True)
    latent.use(load_pretrained(name))
    codes = every_code(6)
    torch.testing.assert_close(latent.to_latent(codes), IndexLatent().to_latent(codes))
    z0 = torch.rand(2, 6, 5, 7) * 2.4 - 1.2
    assert torch.equal(latent.to_codes(z0), IndexLatent().to_codes(z0))


def test_the_nearest_codeword_is_found(opq):
    """Against a search by hand, channel by channel."""
    latent = PrincipalLatent(2)
    latent.use(opq)
    z0 = torch.rand(2, 12, 3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = latent.to_codes(z0)
    for position, book in enumerate(opq.codebooks()):
        points = place_codewords(book, 2).double()
        given = z0[:, 2 * position : 2 * position + 2].double()  # (2, 2, 3, 4)
        squared = (given[:, None] - points[None, :, :, None, None]).square().sum(2)
        assert torch.equal(found[:, position].long(), squared.argmin(1))


def test_coordinates_are_those_of_principal_components():
    """Of a cloud of known axes; all of them keep every distance up to one scale."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    cloud = torch.randn(500, 4, generator=generator) * torch.tensor([8.0, 4, 2, 1]) @ axes
    cloud = cloud[(cloud @ axes[0]).argsort()]
    placed = place_codewords(cloud, 4)
    ratio = torch.pdist(placed) / torch.pdist(cloud)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
    variances = placed.var(0)
    assert torch.equal(variances.argsort(descending=True), torch.arange(4))
    for i, axis in enumerate(axes):
        along = torch.corrcoef(torch.stack([placed[:, i], cloud @ axis]))[0, 1]
        assert abs(float(along)) > 0.98
    assert torch.equal(place_codewords(cloud, 2), placed[:, :2])
    assert float(torch.corrcoef(torch.stack([placed[:, 0], torch.arange(500.0)]))[0, 1]) > 0.9


def test_ranks_along_every_direction():
    cloud = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    cloud *= torch.tensor([4.0, 2, 1])
    ranks, placed = (place_codewords(cloud, 3, ranks=ranked) for ranked in (True, False))
    assert torch.equal(ranks.argsort(0), placed.argsort(0))
    for i in range(3):
        torch.testing.assert_close(ranks[:, i].sort().values, torch.linspace(-1, 1, 16))
    index = torch.arange(16.0) - 7.5
    assert (index @ placed >= 0).all()  # each direction rises with the index


def test_codewords_that_are_equal():
    same = torch.ones(8, 3)
    assert torch.equal(place_codewords(same, 2), torch.zeros(8, 2))
    ranks = place_codewords(same, 1, ranks=True)
    torch.testing.assert_close(ranks[:, 0], torch.linspace(-1, 1, 8))


def test_latents_that_do_not_fit_the_codec_are_refused():
    opq = PatchCodec("OPQ-32-8-8")
    with pytest.raises(InputError, match="latent has codebook_size 16, the codec 256"):
        IndexLatent(16).use(opq)
    with pytest.raises(InputError, match="at least 1 coordinate a code, got 0"):
        PrincipalLatent(0)
    for codec in (JointCodec("JPQ-48"), opq):  # Y of OPQ-32 has 16, Cb and Cr have 64
        with pytest.raises(InputError, match="have 16 numbers, too few for coordinates: 17"):
            PrincipalLatent(17).use(codec)
