"""Codes of image shards, encoded once for each codec and kept in a folder."""

import hashlib
import json
from pathlib import Path

import torch

from lit_mbldm.data.prepare.codec import Codec
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.shards.locate import Patterns, ShardSet, open_shards
from lit_mbldm.errors import InputError


def cached_codes(
    patterns: Patterns | ShardSet,
    codec: Codec,
    cache: Path,
    *,
    flip: bool,
    device: str | torch.device,
    rank: int,
    world_size: int,
) -> Path:
    """The folder of these images' codes, encoded first where that is not done yet.

    All processes that need them call this, with a cache of all nodes or one on each node: they
    share the work out and return when it is done. Those of other runs may join in. Of a complete
    cache nothing is written.

    Args:
        patterns: image shards as `encode_shards` takes them.
        codec: moved to `device` where codes are missing.
        cache: folder of the folders of codes.
        flip: also encode the flipped images.
        device: to encode on.
        rank: of this process.
        world_size: number of processes.

    Returns:
        A folder in `cache`, named by the codec's fingerprint, the images and `flip`.

    Raises:
        InputError: as `encode_shards`, in every process, or codes are missing and the cache
            cannot be written.
    """
    images = patterns if isinstance(patterns, ShardSet) else open_shards(patterns)
    text = json.dumps([images.versions(), flip])
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    folder = cache / f"{codec.fingerprint[:16]}-{fingerprint[:16]}"
    try:
        encode_shards(
            images,
            folder,
            codec,
            flip=flip,
            device=device,
            rank=rank,
            world_size=world_size,
        )
    except OSError as error:
        raise InputError(
            f"The cache {folder} does not hold all codes of {images.name}, and cannot be written:"
            f" {error}. Name a cache folder that can be, or train on the shards that `lit-mbldm"
            " encode` writes."
        ) from error
    return folder
