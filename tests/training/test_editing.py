"""Editing: what is given stays, what is drawn follows seed and options, for every process."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from labelled import make
from PIL import Image
from torch import Tensor

from lit_mbldm.codecs import PixelCodec
from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.masks import join

SIDE = 32


@pytest.fixture(params=["continuous", "categorical", "bits", "stages"])
def model(small: Callable[..., Any], request: pytest.FixtureRequest) -> DiffusionModule:
    return small(request.param, awake=True)


@pytest.fixture
def continuous(small: Callable[..., Any]) -> DiffusionModule:
    return small("continuous", awake=True)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Three smooth images, (3, 3, 32, 32) uint8."""
    coarse = torch.randint(0, 256, (3, 3, 5, 5), generator=torch.manual_seed(1)).float()
    fine = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")
    return fine.clamp(0, 255).byte()


def hole(top: int = 9, left: int = 3, side: int = 10) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_variations_go_from_the_codec_s_round_trip_to_samples(
    model: DiffusionModule, photos: Tensor
) -> None:
    vary = partial(model.vary, photos, steps=3, seed=5)
    codes = model.codec.encode(photos)
    assert torch.equal(vary(0), model.codec.decode(codes))
    assert torch.equal(vary(1), model.sample(3, 3, 5))
    half = vary(0.5)
    assert half.shape == photos.shape
    assert not torch.equal(half, vary(0))
    assert not torch.equal(half, vary(1))
    assert torch.equal(vary(0.5, batch_size=2), half)
    assert torch.equal(model.vary(photos[:1], 0.5, steps=3, seed=5), half[:1])


def test_the_nearer_the_start_the_more_stays(model: DiffusionModule, photos: Tensor) -> None:
    errors = [
        (model.vary(photos, strength, steps=4).float() - photos).square().mean()
        for strength in (0, 0.05, 0.9)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_one_image_has_several_results_in_a_row(
    continuous: DiffusionModule, photos: Tensor
) -> None:
    results = continuous.vary(photos[:2], 0.5, 2, steps=2)
    repeated = photos[:2].repeat_interleave(2, 0)
    assert torch.equal(results, continuous.vary(repeated, 0.5, steps=2))


@pytest.mark.parametrize("resamplings", [1, 2])
def test_inpainting_draws_the_mask_and_keeps_the_rest(
    model: DiffusionModule, photos: Tensor, resamplings: int
) -> None:
    inpaint = partial(model.inpaint, photos, steps=3, resamplings=resamplings)
    filled = inpaint(hole(), seed=1)
    assert torch.equal(filled[:, :, ~hole()], photos[:, :, ~hole()])
    assert not torch.equal(filled, inpaint(hole(), seed=2))
    assert torch.equal(inpaint(hole(), seed=1, batch_size=2), filled)
    several = torch.stack([hole(), torch.zeros_like(hole()), hole(0, 0, 32)])
    mixed = inpaint(several, seed=1)
    assert torch.equal(mixed[0], filled[0])
    assert torch.equal(mixed[1], photos[1])
    if resamplings == 1:  # where all is drawn again, it is a sample
        assert torch.equal(mixed[2], model.sample(3, 3, 1)[2])


def test_what_the_mask_hides_does_not_matter(model: DiffusionModule, photos: Tensor) -> None:
    other = photos.clone()
    other[:, :, hole()] = 255 - other[:, :, hole()]
    inpaint = partial(model.inpaint, mask=hole(), steps=3)
    assert torch.equal(inpaint(photos), inpaint(other))


def test_a_lapped_code_s_support_reaches_into_its_neighbours(photos: Tensor) -> None:
    from lit_mbldm.zoo import load_pretrained

    codec = load_pretrained("jpq-48")
    mask = hole(8, 8, 8)  # a patch, whose neighbours share half a side with it
    for codes_of in (codec, load_pretrained("jpq-48+decoder")):
        assert torch.equal(codes_of.touched(mask[None])[0, 0].nonzero().amin(0), torch.zeros(2))
        assert codes_of.touched(mask[None]).sum() == 9
    assert load_pretrained("opq-32-8-8").touched(mask[None]).sum() == 1
    changed = photos.clone()
    changed[:, :, mask] = 255 - changed[:, :, mask]
    differ = (codec.encode(photos) != codec.encode(changed)).any(1)
    assert not (differ & ~codec.touched(mask[None])[0]).any()


def test_what_is_kept_is_at_least_as_good_as_the_codec(
    model: DiffusionModule, photos: Tensor
) -> None:
    filled, kept = model.inpaint(photos, hole(), steps=2), ~hole()
    decoded = model.vary(photos, 0)
    for image, drawn, coded in zip(photos, filled, decoded, strict=True):
        parts = (one[:, kept].reshape(1, 3, 1, -1) for one in (image, drawn, coded))
        original, mine, codec_s = parts
        assert psnr(mine, original) >= psnr(codec_s, original)


def test_new_and_kept_pixels_meet_without_a_seam() -> None:
    images = torch.full((1, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    drawn, mask = images + 60, hole(0, 16, 32)[None]
    joined = join(drawn, images, mask, 8)[0, 0, 10].int()
    assert joined[:16].eq(100).all()
    assert joined[16] - joined[15] <= 5
    assert joined[24:].eq(160).all()
    assert (joined.diff() >= 0).all()
    assert torch.equal(join(drawn, images, torch.ones_like(mask), 8), drawn)


def test_outpainting_keeps_the_image_in_the_middle(model: DiffusionModule, photos: Tensor) -> None:
    if isinstance(model.codec, PixelCodec):
        with pytest.raises(InputError, match="draws at the size that it learned"):
            model.outpaint(photos, (48, 64), steps=2)
        photos = photos[..., 8:24, 8:24]
        wide = model.outpaint(photos, (32, 32), steps=2)
    else:
        wide = model.outpaint(photos, (48, 64), steps=2)
    top = (wide.shape[2] - photos.shape[2]) // 2 // 8 * 8
    left = (wide.shape[3] - photos.shape[3]) // 2
    rows, columns = (slice(start, start + photos.shape[2]) for start in (top, left))
    assert torch.equal(wide[:, :, rows, columns], photos)
    assert not torch.equal(wide[0], wide[1])


def test_a_row_between_seeds_ends_at_their_samples(model: DiffusionModule) -> None:
    row = model.interpolate(3, 8, 4, steps=3)
    assert torch.equal(row[[0]], model.sample(1, 3, 3))
    assert torch.equal(row[[3]], model.sample(1, 3, 8))
    assert not torch.equal(row[1], row[0])
    assert torch.equal(model.interpolate(3, 8, 4, steps=3, batch_size=3), row)


def test_a_row_between_images_ends_at_their_variations(
    model: DiffusionModule, photos: Tensor
) -> None:
    between = partial(model.interpolate, photos[:1], photos[1:2], 3, "images", steps=3)
    row = between(strength=0.5)
    assert torch.equal(row[[0]], model.vary(photos[:1], 0.5, steps=3))
    assert torch.equal(row[[2]], model.vary(photos[1:2], 0.5, steps=3))
    ends = between(strength=0)[[0, 2]]
    assert torch.equal(ends, model.vary(photos[:2], 0, steps=3))


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_labels_are_told_or_left_out_and_blended(kind: str, photos: Tensor) -> None:
    model = make(kind)
    row = model.interpolate("Crop", "River", 3, "labels", steps=3, guidance=1.5)
    for image, label in ((row[0], "Crop"), (row[2], 2)):
        assert torch.equal(image, model.sample(1, 3, label=label, guidance=1.5)[0])
    assert not torch.equal(row[1], row[0])
    alone = model.vary(photos, 1.0, steps=3)
    assert not torch.equal(alone, model.sample(3, 3))
    told = model.vary(photos, 1.0, steps=3, label=["Crop", "River"])
    assert torch.equal(told, model.sample(3, 3, label=["Crop", "River"]))
    with pytest.raises(InputError, match="give the image's, such as Crop"):
        make(kind, label_dropout=0.0).vary(photos, 0.5, steps=2)


def test_pictures_of_any_kind_are_edited(
    continuous: DiffusionModule, photos: Tensor, tmp_path: Any
) -> None:
    array = photos[0].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "photo.png")
    expected = continuous.vary(photos[:1], 0.5, steps=2)
    for value in (array, Image.fromarray(array), tmp_path / "photo.png"):
        assert torch.equal(continuous.vary(value, 0.5, steps=2), expected)
    filled = continuous.inpaint(array, hole().numpy(), steps=2)
    assert torch.equal(filled, continuous.inpaint(photos[:1], hole(), steps=2))


def test_images_may_be_larger_than_those_learned_and_not_square() -> None:
    torch.manual_seed(0)
    network = UNet(None, None, 8, (1, 2), 1)
    model = ContinuousDiffusion("jpq-48", network, GaussianProcess(), SIDE)
    images = model.sample(2, 2, canvas=(48, 72))
    assert images.shape == (2, 3, 48, 72)
    assert torch.equal(images, model.sample(2, 2, canvas=(48, 72), batch_size=1))
    pictures = model.sample(2, 2, canvas=(48, 72), output="pil")
    assert np.array_equal(np.asarray(pictures[1]), images[1].permute(1, 2, 0))
    assert torch.equal(model.vary(images, 1.0, steps=2), images)


def test_what_cannot_be_edited_is_refused(continuous: DiffusionModule, photos: Tensor) -> None:
    inpaint, vary = partial(continuous.inpaint, photos), partial(continuous.vary, photos)
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: inpaint(hole()[:16]), r"shape \(32, 32\) or \(3, 32, 32\)"),
        (lambda: inpaint(hole().byte()), "a mask of bool"),
        (lambda: inpaint(None), "got a builtins.NoneType"),
        (lambda: inpaint(hole(), resamplings=0), "at least 1"),
        (lambda: vary(1.1), "strength from 0"),
        (lambda: vary(-0.1), "strength from 0"),
        (lambda: vary(0.5, label="Crop"), "knows no labels"),
        (lambda: continuous.vary(photos[..., :24, :], 0.5), r"at least 32×32 .* got 24×32"),
        (lambda: continuous.vary(photos.repeat(1, 1, 1, 2)[..., :36], 0.5), "multiples of 8"),
        (lambda: continuous.vary(photos.float(), 0.5), "uint8"),
        (lambda: continuous.outpaint(photos, (24, 64)), "at least the image's 32×32"),
        (lambda: continuous.interpolate(1, 2, 1), "num_images of at least 2"),
        (lambda: continuous.interpolate(1, 2, between="moods"), "moods"),  # type: ignore[arg-type]
        (lambda: continuous.interpolate("a", "b", between="labels"), "knows no labels"),
        (lambda: continuous.interpolate(1, "b"), "whole number as seed"),
        (lambda: continuous.sample(1, canvas=(30, 32)), "multiples of 8"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
