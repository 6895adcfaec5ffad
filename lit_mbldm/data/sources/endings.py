"""What the ending of a file's name tells: an image, a photograph that is not read, or neither."""

from collections import Counter
from pathlib import Path

from lit_mbldm.data.sources.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_SHOWN = 8  # endings


def is_image(name: str) -> bool:
    """Whether a file or member of this name is taken for an image, by its suffix."""
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def ending(name: str) -> str:
    """A file's ending as it is counted."""
    path = Path(name)
    return "hidden" if path.name.startswith(".") else path.suffix.lower() or "without ending"


def describe_ignored(ignored: Counter[str]) -> str:
    """A sentence on the files that a source passed over, empty where there are none."""
    if not ignored:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(_SHOWN))
    more = f" and {len(ignored) - _SHOWN} other endings" if len(ignored) > _SHOWN else ""
    what_to_do = "".join(
        f" {kind}: {UNREAD_SUFFIXES[kind]}." for kind in ignored if kind in UNREAD_SUFFIXES
    )
    return f"Ignored files: {kinds}{more}.{what_to_do}"
