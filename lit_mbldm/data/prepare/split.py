"""A training and a validation part of images, told apart by their names."""

import hashlib
from array import array
from collections.abc import Iterator

from lit_mbldm.data.sources.raw_image import ImageSource, RawImage
from lit_mbldm.errors import InputError


def split(images: ImageSource, fraction: float) -> tuple[ImageSource, ImageSource]:
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

    def part(up_to: bool) -> ImageSource:
        def start() -> Iterator[RawImage]:
            return (image for image in images if (_share(image.name) <= limit) == up_to)

        number = count if up_to else len(shares) - count
        fingerprint = f"{images.fingerprint} {'up to' if up_to else 'above'} {limit}"
        return ImageSource(images.name, number, fingerprint, start, images.ignored)

    return part(False), part(True)


def _share(name: str) -> float:
    """A number in [0, 1) for a name, as if drawn at random."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
