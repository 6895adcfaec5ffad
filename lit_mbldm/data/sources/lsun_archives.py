"""The zips LSUN is published as (Yu et al., arXiv:1506.03365), and where to fetch them."""

import difflib
import re
from pathlib import Path
from typing import Literal

from lit_mbldm.errors import InputError
from lit_mbldm.storage.download import download
from lit_mbldm.storage.urls import in_folder, public

Split = Literal["train", "val"]

BASE_URL = "http://dl.yf.io/lsun"
# Path, bytes and sha256 of each zip, as TensorFlow Datasets recorded them (url_checksums/lsun.txt).
TABLE = Path(__file__).with_name("lsun.txt")


def fetch_lsun(category: str, split: Split, base_url: str, folder: Path) -> Path:
    """Fetch the zip of a scene or object (which has "train" only), unless the folder has it.

    `base_url` is BASE_URL or a mirror, with user, password and query where it wants them.

    Raises:
        InputError: an unknown category or split, no base URL, or as `download` does.
        OSError: as `download` does.
    """
    if not re.match("https?://[^/?#]", base_url, re.IGNORECASE):
        raise InputError(f"Expected http:// or https:// and a host, got {public(base_url)!r}.")
    rows = (line.split() for line in TABLE.read_text().splitlines())
    zips = {place: (int(size), sha256) for place, size, sha256 in rows}
    categories = list(dict.fromkeys(re.sub("_(train|val)_lmdb$", "", Path(z).stem) for z in zips))
    if category not in categories:
        close = difflib.get_close_matches(category, categories, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"LSUN has no category {category!r}.{hint} Expected one of {', '.join(categories)}."
        )
    place, of_object = f"scenes/{category}_{split}_lmdb.zip", f"objects/{category}.zip"
    if of_object in zips:
        place = of_object
        if split != "train":
            raise InputError(f"LSUN's {category} has no split {split!r}. Expected 'train'.")
    path = folder / Path(place).name
    size, sha256 = zips[place]
    try:
        download(in_folder(base_url, place), path, sha256, size)
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(
            f"{error}. Name a mirror of LSUN with --base-url, or a category it has:"
            f" {', '.join(categories)}."
        ) from error
    return path
