"""The nearest training images of an image, and which images are too near to be new.

Images are compared at 16×16 pixels, without their mean colour, as they are and mirrored: a shift by
a pixel, a codec's loss or another brightness hides no copy.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS = 50
FIXED_RATIO = 0.5  # where no held-out images calibrate it
_HELD_OUT_COPIES = 0.01
_SIDE = 16
_SAME = 7.0  # no distance: a quarter of a grey level at each pixel; float32 rounds by up to 2


class NearestImages:
    """The nearest of a stream of training images to each of N images, in bounded memory.

    Args:
        images: (N, 3, H, W) uint8.

    Attributes:
        nearest: the nearest training image of each, (N, 3, H, W) uint8.
        distances: to the 50 nearest, (N, 50) float32, ascending; inf where there are fewer.
    """

    def __init__(self, images: Tensor) -> None:
        self.nearest = torch.zeros_like(images)
        self.distances = torch.full((len(images), NEIGHBOURS), torch.inf, device=images.device)
        self._described = _describe(images)

    def add(self, training: Tensor) -> None:
        """Compare with more training images, (B, 3, H, W) uint8 with B of at least 1."""
        d = _compare(training, self._described).T  # (N, B)
        smallest, place = d.min(1)
        closer = smallest < self.distances[:, 0]
        self.nearest[closer] = training[place[closer]]
        self.distances = _smallest(torch.cat([self.distances, d], 1))

    def merge(self, distances: Tensor, nearest: Tensor) -> None:
        """Join the results of R parts of the training set: (R, N, 50), and (R, n, 3, H, W).

        Nearest images are known of the first n images; the others' are no longer kept.
        """
        n = nearest.shape[1]
        best = distances[:, :n, 0].argmin(0)
        self.nearest = nearest[best, torch.arange(n)]
        self.distances = _smallest(distances.transpose(0, 1).flatten(1))

    def ratios(self) -> Tensor:
        """Distance to the nearest over the mean distance to the next 49, (N,) float32 in [0, 1].

        Near 0 for a copy (Carlini et al. 2023, section 5.1); nan of fewer than two training images.
        """
        return _ratios(self.distances)


class DescribedImages:
    """Training images, described once, among which the nearest to others is found at once.

    Args:
        batches: of M images, (B, 3, H, W) uint8 each.
    """

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._described = torch.cat([_describe(images) for images in batches])

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the nearest to each image, (N,) int64, and the ratios of `NearestImages`.

        Args:
            images: (N, 3, H, W) uint8.
        """
        d = _compare(images, self._described)  # (N, M)
        return d.argmin(1), _ratios(_smallest(F.pad(d, (0, NEIGHBOURS), value=torch.inf)))


def copy_threshold(held_out: Tensor) -> float:
    """The ratio at or below which 1 % of the held-out images' ratios (N,) lie; at least one."""
    return float(held_out.nanquantile(_HELD_OUT_COPIES, interpolation="lower"))


def average(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Average images (N, 3, H, W) uint8 down to a size (h, w): (N, 3, h, w) float32."""
    source = images.cpu() if images.device.type == "mps" else images  # it pools equal parts alone
    return F.adaptive_avg_pool2d(source.float(), size).to(images.device)


def _describe(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 as (N, 768) float32."""
    small = average(images, (_SIDE, _SIDE))
    return (small - small.mean((2, 3), keepdim=True)).flatten(1)


def _compare(images: Tensor, described: Tensor) -> Tensor:
    """Distances of N images, as they are or mirrored, to M described ones: (N, M)."""
    d, mirrored = (torch.cdist(_describe(one), described) for one in (images, images.flip(-1)))
    return F.threshold(torch.minimum(d, mirrored), _SAME, 0)


def _ratios(distances: Tensor) -> Tensor:
    further = distances[:, 1:]
    mean = further.where(further.isfinite(), torch.nan).nanmean(1)
    return distances[:, 0] / mean.clamp(min=torch.finfo(mean.dtype).tiny)


def _smallest(distances: Tensor) -> Tensor:
    return distances.topk(NEIGHBOURS, largest=False).values
