"""What a source of images gives: undecoded images in a fixed order."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError

MAX_BYTES = 1 << 29


class RawImage(NamedTuple):
    """An undecoded image: its name, and a function that reads its bytes.

    `read` raises ImageError or OSError where the bytes cannot be had. It holds until the next image
    is asked for.
    """

    name: str
    read: Callable[[], bytes]


class ImageSource(Protocol):
    """A collection of raw images in a fixed order.

    Attributes:
        name: where they come from, for the manifest.
        ignored: number of files of each ending that are passed over, because they are no images.
        identity: a hash that changes where the images or their order do.
    """

    name: str
    ignored: Counter[str]
    identity: str

    def __len__(self) -> int:
        """Number of images."""

    def __iter__(self) -> Iterator[RawImage]:
        """The images, the same order each time; those whose `read` is not called cost little."""


def check_bytes(size: int) -> None:
    """Raise ImageError where a file of `size` bytes is too large to be an image."""
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes, more than the {MAX_BYTES} allowed")


def changed(source: ImageSource) -> InputError:
    """The error of a source that gives other images than it held when it was opened."""
    return InputError(
        f"The images in {source.name} changed while they were read: there were {len(source)} at"
        " first. Run the command again, with a new folder for what it writes."
    )
