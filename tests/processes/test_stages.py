import pytest
import torch

from lit_mbldm.codecs import CoefficientLatent
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError
from lit_mbldm.processes import Blur, Pool, Quantise, Truncate
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.stages import Stage

SHAPE = (4, 8, 12)
STAGES = pytest.mark.parametrize(
    "stage", [Pool(2), Pool(4), Truncate(3), Blur(0.7)], ids=lambda stage: str(stage)
)


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, i) for i in range(count)])


def known(stage: Stage) -> Stage:
    stage.set_channels(SHAPE[0])
    return stage


@STAGES
def test_shapes_there_and_back(stage: Stage) -> None:
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    coarse = known(stage).down(x)
    assert coarse.shape[1:] == stage.coarse_shape(SHAPE)
    assert stage.set_channels(SHAPE[0]) == coarse.shape[1]
    assert stage.up(coarse).shape == x.shape
    assert stage.up(coarse).dtype == coarse.dtype == torch.float64


@pytest.mark.parametrize("stage", [Pool(2), Pool(4), Truncate(3)], ids=lambda stage: str(stage))
def test_lifted_noise_is_white_and_its_coarse_part_is_the_noise(stage: Stage) -> None:
    """The coarse part to 1e-12 in float64; the covariance within five standard errors."""
    known(stage)
    count = 20_000
    noise = streams(count).normal(stage.coarse_shape((4, 4, 4))).double()
    lifted = stage.lift(noise, streams(count, 1))
    assert (stage.gain**0.5 * stage.down(lifted) - noise).abs().max() < 1e-12
    numbers = lifted.flatten(1)
    covariance = numbers.mT @ numbers / count
    assert (covariance - torch.eye(64)).abs().max() < 5 * (2 / count) ** 0.5


@pytest.mark.parametrize("stage", [Pool(2), Truncate(3)], ids=lambda stage: str(stage))
def test_down_undoes_up(stage: Stage) -> None:
    coarse = torch.randn(2, *known(stage).coarse_shape(SHAPE))
    assert torch.allclose(stage.down(stage.up(coarse)), coarse, atol=1e-6)


def test_gain_is_what_white_noise_loses() -> None:
    noise = streams(2000).normal(SHAPE)
    for stage in (Pool(2), Pool(4), known(Truncate(3))):
        assert 1 / stage.down(noise).var().item() == pytest.approx(stage.gain, rel=0.02)


def test_a_blur_is_a_gaussian_s_and_keeps_means_and_limits() -> None:
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    blurred = Blur(2.0).down(point)[0, 0]
    places = torch.arange(41).double() - 20
    assert blurred.sum().item() == pytest.approx(1, abs=1e-6)
    for axis in (0, 1):
        variance = (blurred.sum(axis) * places.square()).sum().item()
        assert variance == pytest.approx(4, rel=0.05)  # cut at three deviations
    flat = torch.ones(1, 2, 3, 5)
    assert torch.allclose(Blur(2.0).down(flat), flat)


def test_quantising_leaves_what_the_codes_keep() -> None:
    codec, stage, latent = load_codec("jpq-32-4x4"), Quantise(), CoefficientLatent(48)
    images = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4) * 255, (16, 16)).byte()
    codes = codec.encode(images)
    latent.use(codec)
    stage.use_latent(latent)
    latent.fit(latent.moments(codes, images))
    z0, kept = latent.to_latent(codes, images), latent.to_latent(codes)
    assert kept.shape == z0.shape == (2, 48, 4, 4)
    assert torch.allclose(stage.down(z0), kept, atol=1e-4)
    assert torch.equal(latent.decode(kept), codec.decode(codes))


@torch.no_grad()
def test_mixed_precision_does_not_round_signals() -> None:
    x = torch.randn(2, *SHAPE)
    for stage in (Pool(2), Blur(1.0), known(Truncate(3))):
        exact = stage.up(stage.down(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(stage.up(stage.down(x)), exact)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="multiples of 3 to pool, got 8×12"):
        Pool(3).coarse_shape(SHAPE)
    with pytest.raises(InputError, match=r"fewer than its 4 channels, got keep: 4"):
        Truncate(4).set_channels(4)
    with pytest.raises(InputError, match="factor of at least 2, got 1"):
        Pool(1)
    with pytest.raises(InputError, match="keep of at least 1, got 0"):
        Truncate(0)
    with pytest.raises(InputError, match="positive sigma"):
        Blur(0)
