from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.denoisers import MultiStageUNet, UNet
from lit_mbldm.errors import InputError

Awake = Callable[[Any], Any]
SHAPES = [(3, 16, 24), (2, 16, 24), (3, 8, 12), (3, 4, 6)]


def staged(shapes: list[tuple[int, int, int]] = SHAPES) -> MultiStageUNet:
    torch.manual_seed(0)
    network = MultiStageUNet(3, 6, 16, (1, 2, 2), 1)
    network.set_classes(2)
    network.set_shapes(shapes, [2 * channels for channels, *_ in shapes])
    return network


def inputs(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, *shape), torch.tensor([0.1, 0.9]), torch.randn(2, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_a_prediction_that_starts_at_zero_and_listens(
    shape: tuple[int, int, int], awake: Awake
) -> None:
    network, (z, time, estimate) = staged(), inputs(shape)
    out = network(z, time, estimate)
    assert out.shape == (2, 2 * shape[0], *shape[1:])
    assert (out == 0).all()
    out = awake(network)(z, time, estimate)
    with torch.no_grad():  # channels last
        assert torch.allclose(out, network(z, time, estimate), atol=1e-5)
    labels = torch.tensor([0, 1])
    changed = (-z, time, estimate), (z, time / 2, estimate), (z, time, -estimate)
    for other in (*changed, (z, time, estimate, labels)):
        assert not torch.allclose(out, network(*other), atol=1e-4)


@torch.no_grad()
def test_the_first_shape_passes_through_the_plain_network(awake: Awake) -> None:
    network, plain = awake(staged()), UNet(3, 6, 16, (1, 2, 2), 1)
    plain.set_classes(2)
    plain.load_state_dict({k: network.state_dict()[k] for k in plain.state_dict()})
    given = inputs(SHAPES[0])
    assert torch.equal(network(*given), plain(*given))


def test_coarse_shapes_learn_inner_levels_and_each_its_own_layers(awake: Awake) -> None:
    network = awake(staged())
    learned = []
    for shape in SHAPES:
        network.zero_grad()
        network(*inputs(shape), torch.tensor([0, -1])).square().mean().backward()
        names = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()]
        learned.append(set(names))
    for level, names in enumerate([learned[0], learned[2], learned[3]]):
        levels = {name.split(".")[1] for name in names if name.startswith("down.")}
        assert levels == {str(i) for i in range(level, 3)}
        assert "middle.0.conv1.weight" in names
    own = [{name for name in names if name.startswith("entries.")} for names in learned]
    assert not own[0]
    assert all(own[1:])
    assert not any(own[i] & own[j] for i in range(4) for j in range(i))
    assert set().union(*learned) == {name for name, _ in network.named_parameters()}


def test_a_stage_holds_its_own_activations_alone(awake: Awake) -> None:
    network = awake(staged())

    def held(shape: tuple[int, int, int]) -> int:
        sizes = []
        parameters = {p.data_ptr() for p in network.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in parameters:
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(*inputs(shape))
        return sum(sizes)

    first, _, half, quarter = (held(shape) for shape in SHAPES)
    assert half < 0.6 * first
    assert quarter < 0.6 * half


def test_shapes_without_a_level_are_named() -> None:
    with pytest.raises(InputError, match=r"3 levels halves 16×24 at most to 4×6.*of 2×3"):
        staged([SHAPES[0], (3, 2, 3)])
    with pytest.raises(InputError, match=r"one of the shapes .*got \(3, 5, 5\)"):
        staged()(*inputs((3, 5, 5)))
