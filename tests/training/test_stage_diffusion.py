"""Diffusion in stages through sampling, guidance and what a model says of parts that do not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_mbldm.codecs import CoefficientLatent, PixelCodec
from lit_mbldm.denoisers import MultiStageUNet, UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import Blur, GaussianProcess, MultiStageProcess, Pool, Truncate
from lit_mbldm.training import ContinuousDiffusion, SampleOptions, StageDiffusion

NAMES = ["a", "b"]


def make(*stages: Any, image_size: int = 16, seed: int = 0, **options: Any) -> StageDiffusion:
    torch.manual_seed(seed)
    process = MultiStageProcess(list(stages), [0.5, 0.8][: len(stages)], 20)
    network = MultiStageUNet(base_channels=8, channel_multipliers=(1, 2), blocks_per_level=1)
    made = StageDiffusion(PixelCodec(), network, process, image_size, class_names=NAMES, **options)
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


@pytest.mark.parametrize(("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5)])
def test_samples_and_paths_depend_on_seed_and_label_alone(
    small: Callable[[str, bool], Any], sampler: Any, eta: float
) -> None:
    model = small("stages", True)
    whole = model.sample(3, 4, seed=3, sampler=sampler, eta=eta)
    assert whole.shape == (3, 3, 32, 32)
    assert torch.equal(model.sample(3, 4, seed=3, sampler=sampler, eta=eta, batch_size=1), whole)
    paths = model.sample_paths(2, SampleOptions(4, 3, sampler, eta))
    assert paths.shape == (2, 7, 3, 32, 32)  # 4 steps, and two to the boundaries
    assert torch.equal(paths[:, -1], whole[:2])
    blocks = paths[:, 0].unflatten(2, (16, 2)).unflatten(4, (16, 2))
    assert (blocks == blocks[:, :, :, :1, :, :1]).all()  # noise of half the side


def test_labels_and_guidance_reach_every_stage() -> None:
    model = make(Pool(2))
    plain = model.sample(2, 3, label=0)
    assert not torch.equal(model.sample(2, 3, label=1), plain)
    for interval in [(0.0, 0.4), (0.6, 1.0)]:
        led = model.sample(2, 3, label=0, guidance=3.0, guidance_interval=interval)
        assert not torch.equal(led, plain)
    guide = make(Pool(2), seed=1)
    assert not torch.equal(model.sample(2, 3, label=0, guide=guide, guidance=2), plain)
    with pytest.raises(InputError, match="guide has another process"):
        model.sample(2, 3, label=0, guide=make(Blur(0.5), Pool(2)), guidance=2)


def test_parts_that_do_not_fit_are_named() -> None:
    staged = MultiStageProcess([Truncate(6)], [0.5])
    with pytest.raises(InputError, match=r"\(12, 2, 2\), \(6, 2, 2\).*which a UNet cannot"):
        StageDiffusion("jpq-48", UNet(), staged, 16, latent=CoefficientLatent(12))
    with pytest.raises(InputError, match="multiples of 2 to pool, got 15×15"):
        make(Pool(2), image_size=15)
    with pytest.raises(InputError, match=r"2 levels halves 16×16 at most to 8×8.*of 4×4"):
        make(Pool(2), Pool(2))
    with pytest.raises(InputError, match="fewer than its 3 channels, got keep: 3"):
        make(Truncate(3))
    with pytest.raises(InputError, match=r"one of \('ddpm', 'ddim'\), got 'dpm"):
        make(Pool(2)).sample(1, sampler="dpm++")
    with pytest.raises(InputError, match="StageDiffusion needs a MultiStageProcess"):
        StageDiffusion(PixelCodec(), UNet(), GaussianProcess(), 16)


def test_pixels_are_a_latent_of_any_process_and_come_back_as_they_are() -> None:
    model = ContinuousDiffusion(PixelCodec(), UNet(None, None, 8, (1,), 1), GaussianProcess(), 16)
    images = torch.randint(0, 256, (2, 3, 16, 16)).byte()
    z0 = model.latent.to_latent(model.codec.encode(images))
    assert z0.shape == (2, *model.latent_shape) == (2, 3, 16, 16)
    assert (z0.min() >= -1) & (z0.max() <= 1)
    assert torch.equal(model.latent.decode(z0), images)


def test_coefficients_get_fewer_towards_the_noise() -> None:
    process = MultiStageProcess([Truncate(5), Truncate(2)], [0.3, 0.6], 10)
    network = MultiStageUNet(base_channels=8, channel_multipliers=(1,), blocks_per_level=1)
    model = StageDiffusion("jpq-32-4x4", network, process, 16, latent=CoefficientLatent(12))
    assert model.denoiser.shapes == ((12, 4, 4), (5, 4, 4), (2, 4, 4))
    assert model.sample(1, 5).shape == (1, 3, 16, 16)
