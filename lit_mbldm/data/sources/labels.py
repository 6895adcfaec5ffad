"""Labels of a source's images: by the folders that they lie in."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from lit_mbldm.data.shards.labels import Classes
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.errors import InputError


def label_by_folder(
    images: Sequence[RawImage], paths: Sequence[str], others: Iterable[str], labels: bool = True
) -> tuple[list[RawImage], Classes]:
    """Label images by their folders: the topmost ones that tell them apart are the classes.

    Args:
        images: that get their labels.
        paths: of each, "" where it is not known.
        others: paths of what is no image; a folder's own path ends with a slash.
        labels: whether they are wanted at all.

    Returns:
        The images and the classes' names, sorted; no labels where all images lie in one folder, or
        some above the others' folders.

    Raises:
        InputError: a class folder without an image.
    """
    folders = [path.split("/")[:-1] for path in paths]
    known = [folder for folder, path in zip(folders, paths, strict=True) if path]
    ends = zip(min(known, default=[]), max(known, default=[]), strict=False)
    above = [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], ends)]
    depth = len(above)
    if not labels or not known or any(len(folder) == depth for folder in known):
        return list(images), None
    classes = sorted({folder[depth] for folder in known})
    beside = (path.split("/")[:-1] for path in others)
    found = {folder[depth] for folder in beside if folder[:depth] == above and folder[depth:]}
    empty = sorted(name for name in found - {*classes} if not name.startswith((".", "__")))
    if empty:
        raise InputError(
            f"Expected an image in each class folder, found none in"
            f" {', '.join('/'.join([*above, name]) for name in empty[:5])}. Remove it or give it"
            " images, or turn labels off (--no-labels)."
        )
    numbers = {name: number for number, name in enumerate(classes)}
    found_labels = (numbers[folder[depth]] if folder[depth:] else None for folder in folders)
    labelled = [image._replace(label=n) for image, n in zip(images, found_labels, strict=True)]
    return labelled, tuple(classes)
