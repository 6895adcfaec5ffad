"""What a source of images gives: undecoded images in a fixed order, and what it passes over."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lit_mbldm.data.images import HEIF_SUFFIXES, IMAGE_SUFFIXES

SHOWN_ENDINGS = 8


class RawImage(NamedTuple):
    """An undecoded image: its name, and a function that reads its bytes.

    `read` raises ImageError or OSError where the bytes cannot be had. It holds until the next image
    is asked for.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ImageSource:
    """A collection of raw images in a fixed order.

    Attributes:
        name: where they come from, for the manifest.
        count: number of images.
        fingerprint: sha256 that changes where the images or their order do.
        start: gives the images from the first on, the same each time; those whose `read` is not
            called cost little.
        ignored: number of files of each ending that are passed over, because they are no images.
    """

    name: str
    count: int
    fingerprint: str
    start: Callable[[], Iterator[RawImage]]
    ignored: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[RawImage]:
        return self.start()


def listed(
    name: str, images: list[RawImage], others: Iterable[str], facts: Iterable[str]
) -> ImageSource:
    """A source of images that are listed already; what is added later is not seen.

    Args:
        name: where they come from.
        images: in order.
        others: names of the files that are passed over.
        facts: lines that change where the images do.
    """
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{fact}\n".encode())
    ignored = Counter(map(_ending, others))
    return ImageSource(name, len(images), digest.hexdigest(), partial(iter, images), ignored)


def is_image(name: str) -> bool:
    """Whether a file or member of this name is taken for an image, by its suffix."""
    return _ending(name) in IMAGE_SUFFIXES


def _ending(name: str) -> str:
    path = Path(name)
    return "hidden" if path.name.startswith(".") else path.suffix.lower() or "without ending"


def describe_ignored(ignored: Counter[str]) -> str:
    """A sentence on the files that a source passed over, empty where there are none."""
    if not ignored:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(SHOWN_ENDINGS))
    more = " and others" if len(ignored) > SHOWN_ENDINGS else ""
    heif = " `pip install pillow-heif` reads HEIF." if ignored.keys() & HEIF_SUFFIXES else ""
    return f"Ignored files: {kinds}{more}.{heif}"
