"""A training and a validation part of images, told apart by their names."""

import hashlib
from array import array
from collections.abc import Iterator

from lit_mbldm.data.sources.raw_image import ImageSource, RawImage
from lit_mbldm.errors import InputError


def split(images: ImageSource, fraction: float) -> tuple["Part", "Part"]:
    """A training part, and a validation part of about `fraction` of the images, at least one.

    The sha256 of an image's name decides, so it stays in its part when others come or go.

    Raises:
        InputError: nothing is left to train on.
    """
    shares = array("d", (_share(image.name) for image in images))
    limit = max(fraction, min(shares))
    count = sum(share <= limit for share in shares)
    if count == len(shares):
        raise InputError(
            f"All {count} images of {images.name} would be in the validation part. Choose a smaller"
            " fraction, or give more images."
        )
    return Part(images, limit, False, len(shares) - count), Part(images, limit, True, count)


class Part:
    """The `count` images of a source whose names' shares are up to `limit`, or above it."""

    def __init__(self, images: ImageSource, limit: float, up_to: bool, count: int) -> None:
        self.name, self.ignored = images.name, images.ignored
        self.fingerprint = f"{images.fingerprint} {'up to' if up_to else 'above'} {limit}"
        self._images, self._limit, self._up_to, self._count = images, limit, up_to, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[RawImage]:
        return (i for i in self._images if (_share(i.name) <= self._limit) == self._up_to)


def _share(name: str) -> float:
    """A number in [0, 1) for a name, as if drawn at random."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
