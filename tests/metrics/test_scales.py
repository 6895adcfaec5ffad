import pytest
import torch

from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import ssim
from lit_mbldm.metrics.scales import self_ssim


def test_an_image_is_like_itself_and_unlike_others() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, 12, 16), dtype=torch.uint8, generator=generator)
    larger = noise.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = self_ssim([noise, larger, larger.flip(3)])
    assert found.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert found[1, 2] == pytest.approx(float(ssim(larger, larger.flip(3)).mean()))
    assert found[0, 1] > 0.9 > 0.5 > found[0, 2]
    assert not torch.allclose(found, found.T)  # each pair at either size


def test_other_numbers_of_images_are_refused() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="of one shape"):
        self_ssim([images, images[:1]])
