import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from lit_mbldm.errors import InputError
from lit_mbldm.metrics.fidelity import FEW, FeatureSet, fid, fidelity, kid, spread


def features(count: int, size: int, seed: int, scale: float = 1.0) -> Tensor:
    """Correlated features whose variances differ by four orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(size, size, generator=generator) / size**0.5
    draws = torch.randn(count, size, generator=generator.manual_seed(seed))
    return scale * (draws * torch.logspace(0, -2, size)) @ mix + 0.4


@pytest.mark.parametrize("count", [40, 600])
def test_fid_agrees_with_scipy_s_closed_form(count: int) -> None:
    a, b = features(count, 128, 1), features(count, 128, 2, 1.2) + 0.05
    x, y = a.double().numpy(), b.double().numpy()
    cov = [np.cov(z, rowvar=False) for z in (x, y)]
    root = scipy.linalg.sqrtm(cov[0] @ cov[1]).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov[0] + cov[1] - 2 * root)
    assert fid(FeatureSet.of(a), FeatureSet.of(b)) == pytest.approx(expected, abs=1e-3)


def test_fid_of_fewer_images_than_features_is_exact() -> None:
    """300 images of 2048 features have covariances of rank 299."""
    a, b = features(300, 2048, 1, 10.0), features(300, 2048, 2, 10.0) + 0.02
    x, y = ((z.double() - z.double().mean(0)) / 299**0.5 for z in (a, b))
    root = torch.linalg.svdvals(x @ y.T).sum()
    mean = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = float(mean + x.square().sum() + y.square().sum() - 2 * root)
    assert fid(FeatureSet.of(a), FeatureSet.of(b)) == pytest.approx(expected, abs=1e-3)
    assert abs(fid(FeatureSet.of(a), FeatureSet.of(a))) < 1e-3


def test_few_samples_warn_and_fewer_are_refused() -> None:
    real = features(FEW, 8, 1)
    with pytest.warns(UserWarning, match=r"FID from 999 samples .* at least 1,000"):
        fidelity(real, features(FEW - 1, 8, 2))
    with pytest.raises(InputError, match="at least 4"):
        fidelity(real, features(3, 8, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fidelity(real, features(FEW, 8, 2))


def test_kid_agrees_with_the_unbiased_estimator() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 96), torch.randn(40, 96) + 0.2

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() @ y.double().t() / 96 + 1) ** 3

    def off_diagonal_mean(k: Tensor) -> Tensor:
        return (k.sum() - k.trace()) / (40 * 39)

    expected = (
        off_diagonal_mean(kernel(a, a)) + off_diagonal_mean(kernel(b, b)) - 2 * kernel(a, b).mean()
    )
    assert fidelity(a, b).kid == pytest.approx(expected.item(), rel=1e-6)


def test_kid_s_spread_is_the_jackknife_s_and_that_of_many_draws() -> None:
    x, y = features(30, 16, 1).double(), features(30, 16, 2, 1.5).double()
    left_out = [kid(*(z[torch.arange(30) != i] for z in (x, y)))[0] for i in range(30)]
    value, spread_of_one = kid(x, y)
    assert value == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)
    assert spread_of_one == pytest.approx(29**0.5 * np.std(left_out), rel=1e-6)
    assert fidelity(x, y).kid_std == pytest.approx(spread_of_one, rel=1e-4)
    draws = [
        kid(features(300, 16, 2 * n).double(), features(300, 16, 2 * n + 1, 1.5).double())
        for n in range(40)
    ]
    values, errors = zip(*draws, strict=True)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)


def test_precision_and_recall_of_sets_with_known_answers() -> None:
    torch.manual_seed(0)
    a = torch.randn(200, 8)
    same = fidelity(a, a)
    assert abs(same.fid) < 1e-3
    assert same.precision == same.recall == 1
    far = fidelity(a, a + 100)
    assert far.precision == far.recall == 0
    half = fidelity(torch.cat([a, a + 100]), torch.randn(400, 8))
    assert half.precision > 0.8
    assert 0.4 < half.recall <= 0.5
    both = fidelity(torch.randn(400, 8), torch.cat([a, a + 100]))
    assert 0.4 < both.precision <= 0.5
    assert both.recall > 0.8


@pytest.mark.parametrize(("count", "kept"), [(10, 4), (7, 7), (5, 9), (1000, 333)])
def test_what_is_kept_is_spread_evenly_and_does_not_depend_on_the_shares(
    count: int, kept: int
) -> None:
    whole = spread(0, count, count, kept)
    assert whole.sum() == min(count, kept)
    gaps = whole.nonzero().flatten().diff()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    cut = count // 3
    assert torch.equal(
        whole, torch.cat([spread(0, cut, count, kept), spread(cut, count, count, kept)])
    )
