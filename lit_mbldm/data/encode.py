"""Image shards to code shards.

B images, V variants (the image, its mirror image), S code channels, h×w patches.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from lit_mbldm.data.decoders import ImageDecoder, dump_codes
from lit_mbldm.data.encoding import Codec
from lit_mbldm.data.images import ImageError
from lit_mbldm.data.locate import Patterns, Shard, open_shards
from lit_mbldm.data.manifest import FORMAT, Manifest, ShardEntry, refuse_existing
from lit_mbldm.data.reading import Sample, Span, read_span
from lit_mbldm.data.skips import SkipLog
from lit_mbldm.data.tar_writer import CODEC_MEMBER, write_tar
from lit_mbldm.errors import InputError


class _Decoded(NamedTuple):
    key: str
    pixels: NDArray[np.uint8]


def encode_shards(
    shards: Patterns,
    out: str | Path,
    codec: Codec,
    *,
    flip: bool = True,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    max_skipped: float = 0.01,
) -> Manifest:
    """Encode image shards: one `codes-000000.tar` an input shard, and `manifest.json`.

    A sample is `<key>.npy`, uint8 (V, S, h, w). The first member of each shard, `__codec__`,
    holds the codec's fingerprint and the shape.

    Args:
        shards: folder of image shards, tar, glob or brace pattern, or a list of them.
        out: folder of the code shards, made where it is missing.
        codec: moved to `device` where it is an nn.Module.
        flip: V = 2: also encode each image flipped horizontally; else V = 1.
        batch_size: images a batch.
        device: of the codec.
        max_skipped: largest tolerated fraction of images that cannot be used.

    Raises:
        InputError: no image shards, images of a size the codec cannot encode or of several
            sizes, shards already in `out`, or, after everything is written, more skipped than
            tolerated.
    """
    images = open_shards(shards)
    if images.kind != "images" or batch_size < 1:
        raise InputError(
            f"Expected image shards and a batch_size of at least 1, got {images.kind} in"
            f" {images.name} and {batch_size}."
        )
    if images.size is not None:
        codec.latent_shape(images.size, images.size)
    folder = Path(out)
    refuse_existing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = _Encoder(codec, flip, batch_size, torch.device(device))
    entries = []
    with tqdm(total=images.count, desc="encode", unit="image") as progress:
        for number, shard in enumerate(images.shards):
            samples = encoder.encode(shard, progress)
            for first in islice(samples, 1):
                members = chain([(CODEC_MEMBER, encoder.tag()), first], samples)
                entries.append(write_tar(folder / f"codes-{number:06d}.tar", members))
    skips = encoder.skips
    manifest = encoder.manifest(images.name, entries)
    if entries:
        manifest.write(folder)
    total = max(images.count, manifest.count)
    skips.check(manifest.count, total, max_skipped, f"What is written stays in {out}.")
    if skips.entries:
        tqdm.write(f"Skipped {len(skips.entries)} images:\n{skips.summary()}", file=sys.stderr)
    return manifest


class _Encoder:
    """Encodes shards of images of one size, and keeps the log of what it skips."""

    def __init__(self, codec: Codec, flip: bool, batch_size: int, device: torch.device) -> None:
        if isinstance(codec, nn.Module):
            codec.to(device)
        self.codec = codec
        self.variants = 2 if flip else 1
        self.batch_size = batch_size
        self.device = device
        self.skips = SkipLog()
        self.shape: tuple[int, ...] = ()
        self._size: tuple[int, ...] = ()

    def tag(self) -> bytes:
        """Contents of `__codec__`."""
        fields = {
            "format": FORMAT,
            "fingerprint": self.codec.fingerprint,
            "shape": self.shape,
            "variants": self.variants,
        }
        return json.dumps(fields).encode()

    def manifest(self, source: str, entries: list[ShardEntry]) -> Manifest:
        """Manifest of the shards written."""
        return Manifest(
            "codes",
            sum(entry.count for entry in entries),
            source,
            entries,
            self.skips.entries,
            fingerprint=self.codec.fingerprint,
            shape=list(self.shape),
            variants=self.variants,
        )

    def encode(self, shard: Shard, progress: tqdm) -> Iterator[tuple[str, bytes]]:
        """Members (name, .npy) of the code shard."""
        samples = read_span(Span(shard.path, 0, shard.count), self.skips.add)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(samples, self.batch_size)):
                decoded = [item for item in pool.map(self._decode, batch) if item is not None]
                progress.update(len(batch))
                if decoded:
                    codes = self._codes(decoded).cpu().numpy()
                    for item, variants in zip(decoded, codes, strict=True):
                        yield f"{item.key}.npy", dump_codes(variants)

    def _decode(self, sample: Sample) -> _Decoded | None:
        try:
            key = sample.name.partition("/")[2]
            return _Decoded(key, ImageDecoder()(sample.data, None))
        except ImageError as error:
            self.skips.add(sample.name, error)
            return None

    def _codes(self, batch: list[_Decoded]) -> Tensor:
        for item in batch:
            self._size = self._size or item.pixels.shape
            if item.pixels.shape != self._size:
                raise InputError(
                    f"Expected images of one size, {self._size[2]}×{self._size[1]}, but"
                    f" {item.key} has {item.pixels.shape[2]}×{item.pixels.shape[1]}. Write the"
                    " shards with `lit-mbldm shards --size`."
                )
        self.shape = self.codec.latent_shape(self._size[1], self._size[2])
        images = torch.from_numpy(np.stack([item.pixels for item in batch])).to(self.device)
        variants = [images, images.flip(-1)][: self.variants]
        with torch.no_grad():
            return torch.stack([self.codec.encode(x) for x in variants], dim=1)  # (B, V, S, h, w)
