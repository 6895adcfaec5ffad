"""All images of a source decoded at once, for codecs and crops, which need few."""

import random
from collections.abc import Iterable
from itertools import compress
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from lit_mbldm.data.images import ImageError, load_rgb
from lit_mbldm.data.skips import SkipLog
from lit_mbldm.data.sources import open_source
from lit_mbldm.errors import InputError

MAX_TOTAL_PIXELS = 500_000_000


def read_images(
    source: str | Path, max_images: int | None = None, max_skipped: float = 0.01
) -> dict[str, Image.Image]:
    """Decode the images of a folder, tar or zip.

    Args:
        source: as for `open_source`.
        max_images: take this many at random, the same every time; None takes all.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Returns:
        RGB images by name, in the order of the source.

    Raises:
        InputError: a bad source, too many unreadable images, or more pixels than fit in memory.
    """
    found = open_source(source)
    total = len(found)
    chosen: Iterable[bool] = [True] * total
    if max_images is not None and max_images < total:
        lucky = set(random.Random(0).sample(range(total), max_images))
        chosen, total = [i in lucky for i in range(total)], max_images
    images: dict[str, Image.Image] = {}
    skips, pixels = SkipLog(), 0
    for raw in tqdm(compress(found, chosen), total=total, desc="images", unit="image"):
        try:
            image = load_rgb(raw.read())
        except (ImageError, OSError) as error:
            skips.add(raw.name, error)
            continue
        pixels += image.width * image.height
        if pixels > MAX_TOTAL_PIXELS:
            raise InputError(
                f"{source} holds more than {MAX_TOTAL_PIXELS // 10**6} megapixels, too many to"
                " keep in memory. Use fewer or smaller images."
            )
        images[raw.name] = image
    skips.check(len(images), total, max_skipped, "Nothing was changed.")
    if skips.entries:
        tqdm.write(f"Skipped {len(skips.entries)} images:\n{skips.summary()}")
    return images
