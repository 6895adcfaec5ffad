import pytest
import torch
from torch import Tensor

from lit_mbldm.metrics.nearest import (
    FIXED_RATIO,
    NEIGHBOURS,
    DescribedImages,
    NearestImages,
    copy_threshold,
)


def blots(count: int, seed: int) -> Tensor:
    """Images (N, 3, 32, 32) uint8 of coarse colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear").byte()


def search(images: Tensor, *parts: Tensor) -> NearestImages:
    found = NearestImages(images)
    for part in parts:
        found.add(part)
    return found


CHANGES = {
    "none": lambda images: images,
    "shift": lambda images: images.roll(1, 3),
    "mirror": lambda images: images.flip(3),
    "brightness": lambda images: (images.float() * 0.9 + 20).byte(),
    "noise": lambda images: (images.float() + 5 * torch.randn(images.shape)).clamp(0, 255).byte(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_told_from_held_out_images(change: str) -> None:
    torch.manual_seed(0)
    training, held_out = blots(300, 1), blots(200, 2)
    copies = CHANGES[change](training[:20])
    found = search(torch.cat([held_out, copies]), *training.split(70))
    assert torch.equal(found.nearest[200:], training[:20])
    ratios = found.ratios()
    threshold = copy_threshold(ratios[:200])
    assert (ratios[:200] <= threshold).sum() == 2
    assert (ratios[200:] <= threshold).all()
    assert (ratios[200:] <= FIXED_RATIO).all()
    assert (ratios[:200] > FIXED_RATIO).all()


def test_the_ratio_is_that_of_distances_at_16_pixels_without_the_mean() -> None:
    image, training = blots(1, 1), blots(80, 2)
    flat = [
        torch.nn.functional.avg_pool2d(x.double(), 2) for x in (image, training, training.flip(3))
    ]
    a, b, mirrored = ((x - x.mean((2, 3), keepdim=True)).flatten(1) for x in flat)
    d = torch.minimum(*((a - x).norm(dim=1) for x in (b, mirrored))).sort().values
    expected = d[0] / d[1:NEIGHBOURS].mean()
    assert search(image, training).ratios().item() == pytest.approx(expected.item(), rel=1e-4)


def test_parts_join_to_the_whole_whatever_their_sizes() -> None:
    images, training = blots(7, 1), blots(90, 2)
    whole = search(images, training)
    parts = [search(images, training[:3]), search(images), search(images, training[3:])]
    joined = search(images)
    joined.merge(
        torch.stack([part.distances for part in parts]),
        torch.stack([part.nearest[:5] for part in parts]),
    )
    assert torch.allclose(joined.distances, whole.distances, atol=1e-2)
    assert torch.equal(joined.nearest, whole.nearest[:5])


def test_described_images_are_searched_alike() -> None:
    images, training = blots(7, 1), blots(90, 2)
    for count in (2, 90):
        place, ratios = DescribedImages(training[:count].split(40)).nearest(images)
        whole = search(images, training[:count])
        assert torch.equal(training[place], whole.nearest)
        assert torch.allclose(ratios, whole.ratios(), atol=1e-5)


def test_few_training_images_and_equal_ones() -> None:
    images = blots(3, 1)
    assert search(images, images[:1]).ratios().isnan().all()
    few = search(images, images[:2]).ratios()
    assert few[:2].max() < 0.01 < few[2]
    many = search(images, images[:1].repeat(60, 1, 1, 1)).ratios()
    assert many[0] == 0 < many[1]
