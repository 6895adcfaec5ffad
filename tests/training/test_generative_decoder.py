"""A generative decoder does what a refiner does, with noise that belongs to the sample."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.data import CropDataModule
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training import GenerativeDecoder
from lit_mbldm.training.refiner import load_refiner


def make(network: nn.Module | None = None, **options: Any) -> GenerativeDecoder:
    torch.manual_seed(0)
    made = GenerativeDecoder("opq-32-8-8", network or UNet(None, None, 8, (1, 2), 1), **options)
    for parameter in made.network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return made


def streams(*numbers: int, seed: int = 0) -> SampleStreams:
    return SampleStreams([(seed, number) for number in numbers])


class Knowing(nn.Module):
    """The network that knows the originals of the images that it is told."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.parts: tuple[Any, ...] = ()

    def forward(self, z_t: Tensor, time: Tensor, _: Tensor, decoded: Tensor) -> Tensor:
        (decoder,) = self.parts
        z0 = decoder.latent.to_latent(decoder.codec.encode(self.images), self.images)
        alpha, sigma = decoder.process.alpha_sigma((time * 1000).round().long())
        return (alpha * z_t - z0) / sigma


def test_with_a_perfect_network_decoded_images_become_the_originals() -> None:
    images = nn.functional.interpolate(torch.rand(2, 3, 8, 8) * 255, (32, 32)).byte()
    decoder = make(network := Knowing(images), channels=48)
    network.parts = (decoder,)
    codes = decoder.codec.encode(images)
    decoder.latent.fit(decoder.latent.moments(codes, images))
    batch = {"images": images, "codes": codes, "index": torch.arange(2)}
    assert decoder.loss(batch, (0,)) < 1e-5
    decoded = decoder.codec.decode(codes)
    assert (decoded.float() - images).abs().mean() > 5
    assert (decoder.refine(decoded).float() - images).abs().max() <= 1


def test_an_image_depends_on_its_stream_alone_and_may_have_any_size() -> None:
    decoder = make()
    images = torch.randint(0, 256, (3, 3, 16, 24), dtype=torch.uint8)
    whole = decoder.refine(images, streams(0, 1, 2))
    assert (whole.shape, whole.dtype) == (images.shape, images.dtype)
    assert torch.equal(decoder.refine(images[1:], streams(1, 2)), whole[1:])
    assert torch.equal(decoder.refine(images), decoder.refine(images))
    assert not torch.equal(decoder.refine(images, streams(0, 1, 2, seed=1)), whole)
    assert decoder.network.training
    with pytest.raises(InputError, match=r"multiples of block 4, got 16×21"):
        decoder.refine(images[..., :21])
    with pytest.raises(InputError, match="uint8 RGB"):
        decoder.refine(images / 255)
    with pytest.raises(InputError, match="channels from 1 to the 12 numbers of a position, got 24"):
        make(block=2)
    with pytest.raises(InputError, match="noise_scale of at least 0"):
        make(noise_scale=-1.0)
    with pytest.raises(InputError, match="image shards"):
        decoder.training_step({"codes": torch.zeros(1, 6, 4, 4).byte()}, 0)


@pytest.mark.parametrize(("deviation", "noise_scale"), [(0.03, 1.0), (0.1, 1.0), (0.1, 0.4)])
def test_a_network_that_knows_nothing_draws_the_deviation(
    deviation: float, noise_scale: float
) -> None:
    """The best v of white noise that one is told nothing of is 0, what a new network gives."""
    network = UNet(None, None, 8, (1,), 1)
    decoder = GenerativeDecoder("opq-32-8-8", network, channels=48, noise_scale=noise_scale)
    decoder.latent.fit(torch.diag(torch.tensor([1.0, *[deviation**2] * 48], dtype=torch.float64)))
    grey = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    drawn = decoder.refine(grey).float()
    assert drawn.mean().item() == pytest.approx(128, abs=0.5)
    assert (drawn.std() / 127.5).item() == pytest.approx(deviation * noise_scale, rel=0.06)


def test_samples_pass_through_it_with_their_own_noise(small: Callable[..., Any]) -> None:
    model = small("continuous", True)
    model.use_refiner(make(steps=2))
    whole = model.sample(3, 2, seed=4)
    assert torch.equal(model.sample(3, 2, seed=4, batch_size=2), whole)
    assert not torch.equal(model.sample(3, 2, seed=4, refiner=False), whole)


def test_a_checkpoint_is_rebuilt(quiet: dict[str, Any], tmp_path: Path) -> None:
    decoder = make(channels=20, steps=3)
    fit = L.Trainer(max_steps=1, limit_val_batches=1, **quiet)
    crops = CropDataModule(crop_size=32, batch_size=4, crops_per_epoch=8, zoom_out=4)
    fit.fit(decoder, crops)
    assert decoder.latent.fitted
    assert fit.validate(decoder, crops, verbose=False)[0]["val/loss"] > 0
    fit.save_checkpoint(tmp_path / "decoder.ckpt")
    again = load_refiner(tmp_path / "decoder.ckpt")
    assert describe(again) == describe(decoder)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(again.refine(images), decoder.refine(images))
