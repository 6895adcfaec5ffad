import torch

from lit_mbldm.denoisers.polynomial import Grid, PhaseFilter, draw_polynomials

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


def test_a_flipped_image_is_drawn_flipped() -> None:
    """Coordinates are those of pixels' centres: the way to the right changes its sign."""
    coefficients = torch.zeros(1, 36, 8, 10)
    coefficients[:, 2::12] = 1.0  # of the way along a row
    for size in ((8, 10), (13, 26), (40, 10)):
        grids = Grid(8, size[0], 0, size[0]), Grid(10, size[1], 0, size[1])
        drawn = draw_polynomials(coefficients, *grids)
        assert torch.allclose(drawn, -drawn.flip(3), atol=1e-6)
        assert drawn.abs().max() <= 1
        assert drawn.abs().max() > 0.6 or size[1] == 10  # where all ways are 0
