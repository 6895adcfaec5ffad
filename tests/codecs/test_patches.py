import numpy as np
import pytest
import torch
from PIL import Image

from lit_mbldm.codecs.patches import (
    check_image_size,
    from_patches,
    overlapping_patches,
    rgb_to_ycbcr,
    to_patches,
)
from lit_mbldm.errors import InputError


@pytest.mark.parametrize("patch_size", [1, 4, 8])
def test_patches_round_trip(patch_size):
    images = torch.randn(2, 3, 16, 24)
    patches = to_patches(images, patch_size)
    assert patches.shape == (3, 2, 16 // patch_size, 24 // patch_size, patch_size**2)
    assert torch.equal(from_patches(patches, patch_size), images)
    corner = images[1, 2, -patch_size:, -patch_size:]
    assert torch.equal(patches[2, 1, -1, -1].view(patch_size, patch_size), corner)


def test_overlapping_patches_are_where_they_say():
    images = torch.randn(2, 3, 11, 13)
    rows, columns = 4, 6
    positions = torch.tensor([0, columns + 2, rows * columns + 3 * columns + 5])
    found = overlapping_patches(images, 8, positions).view(3, 3, 8, 8)
    for n, (b, y, x) in enumerate([(0, 0, 0), (0, 1, 2), (1, 3, 5)]):
        assert torch.equal(found[:, n], images[b, :, y : y + 8, x : x + 8])


def test_ycbcr_agrees_with_pillow(images):
    image = images[0]
    theirs = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("YCbCr"))
    ours = (rgb_to_ycbcr(image[None])[0] + 128).round()
    assert (ours - torch.from_numpy(theirs.copy()).permute(2, 0, 1)).abs().max() <= 1


def test_sizes_that_fit_are_named():
    check_image_size(8, 64, 8)
    with pytest.raises(InputError, match=r"30×50.*24×48.*32×56"):
        check_image_size(30, 50, 8)
    with pytest.raises(InputError, match="0×8"):
        check_image_size(0, 8, 8)
