"""A latent that changes shape and a condition go through training and sampling as any other."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_mbldm.errors import InputError
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.processes.base import Chance, Prediction
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import DiffusionModule, SampleOptions

T = 8


class Halving(GaussianProcess):
    """The latent has half its height and width in the noisier half of the times."""

    samplers = ("ddpm",)

    def shape_at(self, shape: Sequence[int], t: int) -> tuple[int, ...]:
        return tuple(shape) if t <= T // 2 else (shape[0], shape[1] // 2, shape[2] // 2)

    def carry(self, z: Tensor, t: int, s: int) -> Tensor:
        return F.interpolate(z, scale_factor=2) if s <= T // 2 < t else z

    def draw_times(self, streams: SampleStreams, batch_key: tuple[int, ...]) -> Tensor:
        times = super().draw_times(streams, batch_key)
        return times[:1].expand(len(streams))  # one stage a batch

    def loss(self, denoiser, z0, t, streams, condition=None, images=None) -> Tensor:  # type: ignore[no-untyped-def]
        z0 = z0 if t[0] <= T // 2 else F.avg_pool2d(z0, 2)
        return super().loss(denoiser, z0, t, streams, condition, images)

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        return self.carry(super().step(z_t, prediction, t, s, chance), t, s)


class Labelled(nn.Module):
    """Adds a number a label; notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))
        self.seen: list[tuple[int, list[int]]] = []

    def forward(self, z_t: Tensor, time: Tensor, estimate: Tensor, labels: Tensor) -> Tensor:
        assert z_t.shape == estimate.shape
        assert len(z_t) == len(time) == len(labels)
        self.seen.append((z_t.shape[-1], labels.tolist()))
        return estimate / 2 + self.bias[labels].view(-1, 1, 1, 1)


class LabelledDiffusion(DiffusionModule):
    process_class = Halving

    def batch_condition(self, batch: dict[str, Tensor], streams: SampleStreams) -> Tensor:
        return batch["labels"]

    def sample_condition(self, numbers: Sequence[int], options: SampleOptions) -> Tensor:
        return torch.tensor(numbers) % 10


@pytest.fixture
def model() -> LabelledDiffusion:
    torch.manual_seed(0)
    return LabelledDiffusion("opq-32-8-8", Labelled(), Halving(T), image_size=32)


def test_training_shows_each_sample_its_own_condition_at_every_shape(
    model: LabelledDiffusion, quiet: dict[str, Any]
) -> None:
    samples: Any = [
        {"codes": torch.full((6, 4, 4), 20 * i).byte(), "index": i, "labels": i} for i in range(10)
    ]
    L.Trainer(max_epochs=8, **quiet).fit(model, DataLoader(samples, batch_size=10))
    seen = model.denoiser.seen
    assert {side for side, _ in seen} == {2, 4}
    whole, halves = [x for _, x in seen if len(x) == 10], [x for _, x in seen if len(x) < 10]
    assert whole == [list(range(10))] * 8
    assert halves  # first passes, of some samples in their order
    assert all(labels == sorted(labels) for labels in halves)
    assert (model.denoiser.bias != 0).all()


def test_sampling_follows_the_shapes_and_keeps_each_image_s_condition(
    model: LabelledDiffusion,
) -> None:
    images = model.sample(12, batch_size=8, steps=4)
    assert images.shape == (12, 3, 32, 32)
    assert [side for side, _ in model.denoiser.seen] == [2, 2, 4, 4] * 2
    assert model.denoiser.seen[-1][1] == [8, 9, 0, 1]
    assert torch.equal(model.sample(12, batch_size=5, steps=4), images)
    paths = model.sample_paths(2, SampleOptions(steps=4), frames=5)
    assert paths.shape == (2, 5, 3, 32, 32)
    assert torch.equal(paths[:, -1], images[:2])


def test_a_sampler_that_is_not_the_process_s_is_refused(model: LabelledDiffusion) -> None:
    with pytest.raises(InputError, match=r"Halving is sampled with one of.*'ddim'"):
        model.sample(1, sampler="ddim")
