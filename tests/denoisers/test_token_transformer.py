from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.denoisers import TokenTransformer
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.processes.base import Process
from lit_mbldm.processes.categorical_head import HeadedDenoiser
from lit_mbldm.processes.guidance import guided
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import draw
from lit_mbldm.zoo import load_pretrained

Awake = Callable[[Any], Any]
BOTH = pytest.mark.parametrize("time_as_token", [False, True], ids=["adaptive", "token"])


def small(channels: int = 3, time_as_token: bool = False, **options: Any) -> TokenTransformer:
    torch.manual_seed(0)
    options = {"grid_size": 4, "width": 32, "depth": 2, "num_heads": 4, **options}
    return TokenTransformer(channels, channels, time_as_token=time_as_token, **options)


def inputs(channels: int, *sides: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    z, estimate = torch.randn(2, 2, channels, *sides)
    return z, torch.tensor([0.1, 0.9]), estimate


def test_the_paper_s_size() -> None:
    with torch.device("meta"):
        paper = TokenTransformer(32, 32, time_as_token=True, grid_size=16)
    count = sum(p.numel() for p in paper.parameters())
    assert abs(count / 171e6 - 1) < 0.01


@BOTH
def test_all_inputs_reach_the_output_of_every_position(time_as_token: bool, awake: Awake) -> None:
    network, (z, time, estimate) = small(time_as_token=time_as_token), inputs(3, 4, 4)
    assert (network(z, time, estimate) == 0).all()  # as it starts
    out = awake(network)(z, time, estimate)
    corner = torch.zeros_like(z)
    corner[..., 0, 0] = 1
    changed = [(z + corner, time, estimate), (z, time, estimate + corner), (z, time / 2, estimate)]
    for given in changed:
        assert (network(*given) - out).abs().amax(1).min() > 1e-6


@BOTH
def test_only_learned_positions_tell_places_apart(time_as_token: bool, awake: Awake) -> None:
    """Without them, moving the positions of the input moves those of the output."""
    network, (z, time, estimate) = awake(small(time_as_token=time_as_token)), inputs(3, 4, 4)

    def mixed(x: Tensor) -> Tensor:
        return x.flatten(2)[..., torch.arange(16) * 5 % 16].view_as(x)

    out, moved = network(z, time, estimate), network(mixed(z), time, mixed(estimate))
    assert not torch.allclose(mixed(out), moved, atol=1e-3)
    torch.nn.init.zeros_(network.positions.weight)
    out, moved = network(z, time, estimate), network(mixed(z), time, mixed(estimate))
    assert torch.allclose(mixed(out), moved, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (8, 4)])
@torch.no_grad()
def test_other_grids_take_positions_between_those_learned(
    height: int, width: int, awake: Awake
) -> None:
    network = awake(small(grid_size=None))
    network.set_grid(4, 6)
    network.set_grid(9, 9)  # is too late
    assert network.positions_at(4, 6) is network.positions.weight
    assert network(*inputs(3, height, width)).shape == (2, 3, height, width)
    rows, columns = torch.arange(4.0).repeat_interleave(6), torch.arange(6.0).repeat(4)
    for place, learned in enumerate((rows, columns)):
        network.positions.weight.copy_(learned[:, None])
        found = network.positions_at(height, width)
        assert found.shape == (height * width, 32)
        sides = [(torch.arange(n) + 0.5) * m / n - 0.5 for n, m in ((height, 4), (width, 6))]
        expected = torch.meshgrid(*sides, indexing="ij")[place]
        assert (found[:, 0].view(height, width) - expected).abs().max() < 0.2


@BOTH
def test_labels_change_the_output_and_their_absence_is_minus_one(
    time_as_token: bool, awake: Awake
) -> None:
    network, given = small(time_as_token=time_as_token), inputs(3, 4, 4)
    network.set_classes(5)
    awake(network)
    zero, four, none = (network(*given, torch.full((2,), label)) for label in (0, 4, -1))
    assert torch.equal(none, network(*given))
    for one, other in ((zero, four), (zero, none), (four, none)):
        assert not torch.allclose(one, other, atol=1e-3)
    led = guided(network, 3.0)(given[0], given[1][:1].expand(2), given[2], torch.tensor([0, 4]))
    assert led.isfinite().all()


@BOTH
def test_every_parameter_learns(time_as_token: bool, awake: Awake) -> None:
    network = small(time_as_token=time_as_token, dropout=0.1)
    network.set_classes(1)
    awake(network)
    network(*inputs(3, 4, 4), torch.tensor([0, -1])).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_bfloat16_predicts_about_the_same(awake: Awake) -> None:
    network, given = awake(small()), inputs(3, 4, 4)
    exact = network(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert (network(*given) - exact).norm() < 0.03 * exact.norm()


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of num_heads, got 32 and 5"):
        small(num_heads=5)


@torch.no_grad()
def test_the_categorical_loss_reads_its_features_through_the_head(awake: Awake) -> None:
    process = CategoricalProcess(cross_entropy_weight=1.0)
    process.use(load_pretrained("opq-32-8-8"))
    network = small(None)
    network.set_channels(6, process.output_channels(6))
    assert isinstance(awake(network), HeadedDenoiser)
    codes, t = torch.randint(0, 256, (2, 6, 4, 4), dtype=torch.uint8), torch.tensor([100, 900])

    def loss(denoiser: Any) -> Tensor:
        streams = SampleStreams([(0, 0), (0, 1)])
        return process.loss(denoiser, process.index.to_latent(codes), t, streams)

    assert torch.allclose(loss(network), loss(lambda *inputs: network(*inputs)), rtol=1e-5)


@BOTH
def test_it_learns_one_image_and_draws_it(time_as_token: bool) -> None:
    """What is drawn from noise depends on the place, which the positions must tell."""
    network, image = small(2, time_as_token), torch.randn(2, 4, 4).sign()
    process: Process = GaussianProcess(100, "cosine", objective="x0")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(150):
        streams = SampleStreams([(step, i) for i in range(8)])
        z0 = image.expand(8, -1, -1, -1)
        process.loss(network, z0, process.draw_times(streams, (step,)), streams).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        drawn = draw(process, network, image.shape, 8, SampleStreams([(0, 0), (1, 0)]))
    assert (drawn - image).abs().max() < 0.3
