import pytest
import torch

from lit_mbldm.codecs.fitting.lapping import fit_lapping, least_distortion
from lit_mbldm.codecs.lapping import border_filter, inverse_filters, lap, overlapped_basis, unlap


def pixels(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def orthogonal(size: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(pixels(size, size, seed=seed))[0]


def invertible(size: int) -> torch.Tensor:
    stretch = 0.7 + pixels(size, seed=2).sigmoid()
    return orthogonal(size) * stretch @ orthogonal(size, seed=1)


@pytest.mark.parametrize("half", [1, 2, 4, 8])
@pytest.mark.parametrize("make", [orthogonal, invertible])
def test_it_is_inverted_and_changes_nothing_it_is_given(half, make):
    odd, images = make(half), pixels(2, 3, 6 * half, 10 * half)
    kept = images.clone()
    lapped = lap(images, odd)
    assert torch.equal(images, kept)
    assert lapped.shape == images.shape
    assert torch.allclose(unlap(lapped, inverse_filters(odd)), images, atol=1e-12)


def test_no_filter_changes_nothing_and_an_orthogonal_one_keeps_squared_errors():
    odd, images = orthogonal(4), pixels(2, 3, 24, 40)
    assert torch.allclose(lap(images, torch.eye(4).double()), images, atol=1e-12)
    P = border_filter(odd)
    assert torch.allclose(P @ P.t(), torch.eye(8).double(), atol=1e-12)
    assert torch.allclose(lap(images, odd).square().sum(), images.square().sum())


def test_an_error_in_one_patch_costs_as_much_in_pixels():
    odd, error = invertible(4), torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    error[..., 16:24, 16:24] = pixels(8, 8)
    image = unlap(error, inverse_filters(odd))
    assert torch.allclose(image.square().sum(), error.square().sum())
    assert (image[..., 12:28, 12:28] != 0).any(3).all()  # it fades into half of each neighbour
    assert not image[..., :12, :].any()


@pytest.mark.parametrize("side", [8, 16, 24])
def test_borders_of_images_stay(side):
    odd, images = invertible(4), pixels(1, 3, side, side)
    mirrored = torch.cat([images.flip(3), images], dim=3)  # a border about which all is even
    P = border_filter(odd)
    strip = mirrored[..., side - 4 : side + 4]
    assert torch.allclose(strip @ P.t(), strip, atol=1e-12)
    changed = images.clone()
    changed[..., side - 1, side - 1] += 1  # the last corner
    before, after = lap(images, odd), lap(changed, odd)
    assert not (before != after)[..., : side - 8, :].any()
    assert not (before != after)[..., : side - 8].any()


def test_the_basis_is_what_happens_to_a_patch():
    odd, images = invertible(4), pixels(1, 1, 24, 32)
    basis = overlapped_basis(odd)
    expected = basis @ images[..., 4:20, 12:28] @ basis.t()
    assert torch.allclose(lap(images, odd)[..., 8:16, 16:24], expected, atol=1e-12)


def test_least_distortion_is_that_of_water_filling():
    variances = torch.tensor([0.01, 1.0, 4.0, 16.0], dtype=torch.float64)
    # 3 bits: 16 and 4 to a water level of 1 take log2(4) + log2(2)
    assert least_distortion(variances, 3.0).item() == pytest.approx(3.01)
    assert least_distortion(variances, 0.0).item() == pytest.approx(float(variances.sum()))
    many = least_distortion(variances, 40.0).item()
    assert many == pytest.approx(4 * (float(variances.prod()) * 2**-80) ** 0.25)


def test_fitting_finds_a_transform_that_gains_on_correlated_pixels():
    near = 50 * 0.95 ** (torch.arange(8.0)[:, None] - torch.arange(8.0)).abs().double()
    covariance = torch.kron(near, near)  # windows of 8×8 around patches of 4×4
    odd = fit_lapping(covariance, channels=1, bits=16.0)

    def loss(odd: torch.Tensor) -> float:
        T = torch.kron(overlapped_basis(odd), overlapped_basis(odd))
        return float(least_distortion(torch.linalg.eigvalsh(T @ covariance @ T.t()), 16.0))

    fitted = loss(odd)
    assert fitted < 0.9 * loss(torch.eye(2).double())
    for i in range(4):
        near_by = odd.clone()
        near_by.view(-1)[i] += 0.02
        assert loss(near_by) > fitted
