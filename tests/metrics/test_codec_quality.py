import math

import pytest
import scipy.stats
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import (
    codebook_usage,
    ordinality,
    psnr,
    rank_correlation,
    ssim,
)


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two clouds, and the same with a little and with much noise."""
    generator = torch.Generator().manual_seed(0)
    clouds = torch.rand(2, 3, 12, 16, generator=generator)
    images = 255 * F.interpolate(clouds, (96, 128), mode="bicubic").clamp(0, 1)
    noise = torch.tensor([4.0, 30.0]).view(2, 1, 1, 1) * torch.randn(
        images.shape, generator=generator
    )
    return images.byte(), (images + noise).clamp(0, 255).byte()


def theirs(a, b, measure):
    """What scikit-image measures."""
    a, b = (image.permute(1, 2, 0).numpy() for image in (a, b))
    if measure == psnr:
        return peak_signal_noise_ratio(a, b)
    return structural_similarity(a, b, channel_axis=2, data_range=255)


@pytest.mark.parametrize(("measure", "best"), [(psnr, math.inf), (ssim, 1)])
def test_psnr_and_ssim_agree_with_scikit_image(measure, best, pair):
    expected = [theirs(a, b, measure) for a, b in zip(*pair, strict=True)]
    assert measure(*pair).tolist() == pytest.approx(expected, abs=1e-4)
    assert float(measure(pair[0][0], pair[1][0])) == pytest.approx(expected[0], abs=1e-4)
    assert measure(pair[0], pair[0]).tolist() == pytest.approx([best] * 2)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_pairs_that_do_not_match(measure, pair):
    images, _ = pair
    for other in (images.float(), images[..., :-1], images[0]):
        with pytest.raises(InputError, match="two uint8 images of one shape"):
            measure(images, other)


def test_usage():
    codes = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]]).view(1, 2, 2, 2).to(torch.uint8)
    used, perplexity = codebook_usage(codes, 8)
    assert used.tolist() == [1 / 8, 1 / 2]
    assert perplexity.tolist() == pytest.approx([1, 4])


def test_ordinality_of_a_line_and_of_no_order():
    line = torch.arange(256.0)[:, None] * torch.ones(3)
    assert ordinality(line, (1, 2, 16)).tolist() == pytest.approx(
        [3 * n / 257 for n in (1, 2, 16)]  # a random pair is (K + 1) / 3 apart
    )
    random = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
    assert ordinality(random).tolist() == pytest.approx([1] * 5, abs=0.15)
    assert ordinality(line[:16], (16,)).isnan().all()


def test_rank_correlation_is_scipy_s():
    line = torch.arange(64.0)[:, None] * torch.ones(3)
    assert rank_correlation(line) == pytest.approx(1)
    cloud = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    cloud = cloud[cloud[:, 0].argsort()]
    index = torch.pdist(torch.arange(64.0)[:, None])
    expected = scipy.stats.spearmanr(index, torch.pdist(cloud.double())).statistic
    assert math.isnan(rank_correlation(cloud[:2]))
    assert rank_correlation(cloud) == pytest.approx(expected, abs=1e-6)
