"""What a source of images gives: undecoded images in a fixed order, and what it passes over."""

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lit_mbldm.data.shards.labels import Classes
from lit_mbldm.errors import InputError
from lit_mbldm.images import HEIF_SUFFIXES, IMAGE_SUFFIXES

SHOWN_ENDINGS = 8


class RawImage(NamedTuple):
    """An undecoded image: its name, a function that reads its bytes, and its label if it has one.

    `read` raises ImageError or OSError where the bytes cannot be had. It holds until the next image
    is asked for.
    """

    name: str
    read: Callable[[], bytes]
    label: int | None = None


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
        classes: names of the images' labels, None where they have none.
    """

    name: str
    count: int
    fingerprint: str
    start: Callable[[], Iterator[RawImage]]
    ignored: Counter[str] = field(default_factory=Counter)
    classes: Classes = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[RawImage]:
        return self.start()

    def split(self, fraction: float) -> tuple["ImageSource", "ImageSource"]:
        """A training part, and a validation part of about `fraction` of the images, at least one.

        The sha256 of an image's name decides, so it stays in its part when others come or go.
        Raises InputError where nothing is left to train on.
        """
        shares = array("d", (_share(image.name) for image in self))
        limit = max(fraction, min(shares))
        count = sum(share <= limit for share in shares)
        if count == len(shares):
            raise InputError(
                f"All {count} images of {self.name} would be in the validation part. Choose a"
                " smaller fraction, or give more images."
            )

        def part(up_to: bool) -> ImageSource:
            def start() -> Iterator[RawImage]:
                return (image for image in self if (_share(image.name) <= limit) == up_to)

            number = count if up_to else len(shares) - count
            fingerprint = f"{self.fingerprint} {'up to' if up_to else 'above'} {limit}"
            return ImageSource(self.name, number, fingerprint, start, self.ignored, self.classes)

        return part(False), part(True)

    def ignored_files(self) -> str:
        """A sentence on the files that are passed over, empty where there are none."""
        if not self.ignored:
            return ""
        kinds = [f"{count} {kind}" for kind, count in self.ignored.most_common(SHOWN_ENDINGS)]
        others = ["others"] * (len(self.ignored) > SHOWN_ENDINGS)
        unread = self.ignored.keys() & HEIF_SUFFIXES
        heif = " `pip install pillow-heif` reads HEIF." if unread else ""
        return f"Ignored files: {', '.join(kinds + others)}.{heif}"

    def tell_ignored(self) -> None:
        """Print that sentence."""
        if self.ignored:
            tqdm.write(self.ignored_files(), file=sys.stderr)


def listed(
    name: str,
    images: list[RawImage],
    classes: Classes,
    others: Iterable[str],
    facts: Iterable[str],
) -> ImageSource:
    """A source of images listed already, of names passed over, and of facts that tell a change."""
    fingerprint = hashlib.sha256("".join(f"{fact}\n" for fact in facts).encode()).hexdigest()
    ignored = Counter(map(_ending, others))
    return ImageSource(name, len(images), fingerprint, partial(iter, images), ignored, classes)


def file_facts(name: str, path: Path) -> str:
    """What tells a file from another one."""
    try:
        status = path.stat()
    except OSError:  # reading it gives the reason
        return f"{name!r} unreadable"
    return f"{name!r} {status.st_size} {status.st_mtime_ns}"


def is_image(name: str) -> bool:
    """Whether a file or member of this name is taken for an image, by its suffix."""
    return _ending(name) in IMAGE_SUFFIXES


def _ending(name: str) -> str:
    path = Path(name)
    return "hidden" if path.name.startswith(".") else path.suffix.lower() or "without ending"


def _share(name: str) -> float:
    """A number in [0, 1) for a name, as if drawn at random."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
