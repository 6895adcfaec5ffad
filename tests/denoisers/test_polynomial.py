import torch

from lit_mbldm.denoisers.polynomial import PhaseFilter, draw_polynomials
from lit_mbldm.denoisers.renderers import Grid

ROWS, COLUMNS = Grid(16, 25, 3, 20), Grid(20, 47, 0, 47)


def test_least_squares_finds_the_filter_that_made_an_image_larger() -> None:
    torch.manual_seed(0)
    made, found = PhaseFilter(3), PhaseFilter(3)
    torch.nn.init.normal_(made.kernels.weight, std=0.1)
    made.kernels.weight.data -= made.kernels.weight.mean((2, 3), keepdim=True)
    images = torch.rand(4, 3, 16, 20)
    with torch.no_grad():
        missing = draw_polynomials(made(images), ROWS, COLUMNS)
        assert not draw_polynomials(found(images), ROWS, COLUMNS).any()
        found.fit(found.moments(images, missing, ROWS, COLUMNS))
        drawn = draw_polynomials(found(images), ROWS, COLUMNS)
        assert (drawn - missing).square().mean() < 0.01 * missing.square().mean()
        flat = torch.full((1, 3, 16, 20), 0.7)
        assert draw_polynomials(found(flat), ROWS, COLUMNS).abs().max() < 1e-4
