"""All images of a source decoded at once, for codecs and crops, which need few."""

import random
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError, load_rgb

MAX_TOTAL_PIXELS = 250_000_000


def read_images(
    source: str | Path, max_images: int | None = None, max_skipped: float = 0.01
) -> dict[str, Image.Image]:
    """Decode the images of a source to RGB images by name, in its order.

    Args:
        source: as for `open_source`.
        max_images: take at most this many at random, the same every time, and stop where they
            fill the memory set aside; None takes all.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Raises:
        InputError: a bad source, too many unreadable images, or, where all are wanted, more
            pixels than the memory set aside.
    """
    found = open_source(source)
    found.tell_ignored()
    count = min(max_images or len(found), len(found))
    chosen = set(random.Random(0).sample(range(len(found)), count))
    wanted = (raw for number, raw in enumerate(found) if number in chosen)
    images: dict[str, Image.Image] = {}
    skips, pixels = SkipLog(), 0
    for raw in tqdm(wanted, total=count, desc="images", unit="image"):
        try:
            image = load_rgb(raw.read())
        except (ImageError, OSError) as error:
            skips.add(raw.name, error)
            continue
        pixels += image.width * image.height
        if pixels > MAX_TOTAL_PIXELS:
            note = f"{MAX_TOTAL_PIXELS // 10**6} megapixels are kept in memory, {source} holds more"
            if max_images is None:
                raise InputError(f"At most {note}. Use fewer or smaller images.")
            tqdm.write(f"{note}: {len(images)} images are used.", file=sys.stderr)
            break
        images[raw.name] = image
    skips.close(len(images), "images", max_skipped, "Nothing was changed.")
    return images
