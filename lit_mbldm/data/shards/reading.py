"""Samples of shards, in order, of shards that are what their manifest tells; and their arrays.

A sample has V variants: as it was stored and, last, its mirror image. Nothing pickled is read.
"""

import io
import math
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lit_mbldm.data.shards.labels import Classes, checked_label, read_label
from lit_mbldm.data.shards.tar import (
    CodecTag,
    Member,
    ShardEntry,
    describe,
    file_sha256,
    is_label,
    read_member,
    read_tag,
    sample_members,
    tar_members,
)
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError, fit_square, load_rgb, to_array
from lit_mbldm.storage.urls import base_name, is_url, open_binary, public

Array = NDArray[np.uint8]
OnSkip = Callable[[str, Exception, int], None]
Variants = Callable[[bytes], list[Array] | Array]  # of a sample's bytes; raises ImageError
_NPY = b"\x93NUMPY\x01\x00"  # version 1.0, which `np.save` writes


@dataclass(frozen=True)
class Shard:
    """One shard of `count` samples, of which the first is number `start` of the set.

    `url` is a local path or a URL, with its secrets, so not for messages; `tag` the codec's, None
    for images; `entry` what the manifest beside it tells of the whole file, if there is one;
    `classes` the names of its labels.
    """

    url: str
    count: int
    tag: CodecTag | None
    start: int
    entry: ShardEntry | None = None
    classes: Classes = None

    @property
    def name(self) -> str:
        """File name."""
        return base_name(self.url)


@dataclass(frozen=True)
class Sample:
    """One undecoded sample: its name `shard/key`, number in the set, image or codes, and label."""

    name: str
    index: int
    data: bytes
    label: int | None = None

    @property
    def key(self) -> str:
        """Its name in the shard, without the suffix."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Span:
    """Samples start to stop - 1 of a shard.

    If `verified`, one of a URL is copied and compared with its sha256, as local ones always are.
    """

    shard: Shard
    start: int
    stop: int
    verified: bool = False


class LostShardError(ImageError):
    """A shard that cannot be reached or was changed: another try or copy may give all of it."""


def whole(shard: Shard) -> Span:
    """All samples of a shard, of any place only where it has its sha256."""
    return Span(shard, 0, shard.count, verified=True)


def spans(shards: Sequence[Shard], start: int, stop: int) -> list[Span]:
    """Where samples start to stop - 1 of all shards lie, in a circle: after the last the first."""
    found, begin = [], 0
    for shard in [*shards, *shards]:
        first, last = max(start, begin) - begin, min(stop, begin + shard.count) - begin
        if first < last:
            found.append(Span(shard, first, last))
        begin += shard.count
    return found


def read_span(span: Span, on_skip: OnSkip) -> Iterator[Sample]:
    """Read the samples of a span; none of a shard that differs from its sha256.

    `on_skip` is told a name, the error and the number of samples lost by it: of each that is too
    large; once of a shard that is damaged or, with a LostShardError, that cannot be reached or
    differs from its sha256. Raises InputError where the shard holds codes of another codec, or a
    sample of labelled ones has none of its labels.
    """
    shard, number = span.shard, span.start
    lost: Exception | None = None
    try:
        with _open(span) as stream:
            for key, data, label in _samples(span, stream):
                name = f"{shard.name}/{key}"
                if isinstance(data, ImageError):
                    on_skip(name, data, 1)
                else:
                    if shard.classes is not None:
                        checked_label(label, shard.classes, name)
                    yield Sample(name, shard.start + number, data, label)
                number += 1
    except (OSError, tarfile.TarError, LostShardError) as error:
        lost = error
    if number == span.stop:
        return
    if not isinstance(lost, LostShardError):
        reason = f" ({lost})" if lost else ""
        kind = LostShardError if isinstance(lost, OSError) else ImageError
        lost = kind(f"ends after {number} samples{reason}")
    on_skip(shard.name, lost, span.stop - number)


def image_variants(data: bytes, image_size: int | None = None) -> list[Array]:
    """An image (3, H, W), of a side if one is given, and its mirror image; raises ImageError."""
    image = load_rgb(data)
    pixels = to_array(image if image_size is None else fit_square(image, image_size))
    return [pixels, pixels[:, :, ::-1]]


def code_variants(data: bytes, shape: tuple[int, int, int], codebook_size: int = 256) -> Array:
    """The codes (V, S, h, w) in an .npy, of a shape (S, h, w); V = 2 with the mirror image's.

    Raises ImageError where `np.save` would not write it so, or a code is `codebook_size` or more.
    """
    head, _, codes = data.partition(b"\n")
    V, rest = divmod(len(codes), math.prod(shape))
    right = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(V, *shape)}, }}".encode()
    length = int.from_bytes(head[8:10], "little")
    found = rest, head[:8], length, head[10:].rstrip(b" ")
    if V not in (1, 2) or found != (0, _NPY, len(head) - 9, right):
        raise ImageError(f"no readable .npy of codes, uint8 (1 or 2, *{shape})")
    array = np.frombuffer(codes, np.uint8).reshape(V, *shape)
    if codebook_size < 256 and array.max() >= codebook_size:
        raise ImageError(f"code {array.max()}, but the codec has {codebook_size} codewords")
    return array


def dump_codes(codes: Array) -> bytes:
    """Write codes (V, S, h, w) uint8 as an .npy."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(codes), allow_pickle=False)
    return stream.getvalue()


@contextmanager
def _open(span: Span) -> Iterator[BinaryIO]:
    """Open a shard; raises LostShardError where it differs from its sha256."""
    shard, remote = span.shard, is_url(span.shard.url)
    path = shard.url
    with ExitStack() as stack:
        if shard.entry is not None and (span.verified or not remote):
            if remote:
                copy = stack.enter_context(tempfile.NamedTemporaryFile())
                shutil.copyfileobj(stack.enter_context(open_binary(shard.url)), copy)
                copy.flush()
                path = copy.name
            status = os.stat(path)
            if _sha256(path, status.st_size, status.st_mtime_ns) != shard.entry.sha256:
                raise LostShardError(
                    "differs from the sha256 in its manifest.json: copy or write it again, or"
                    " remove the manifest to use it as it is"
                )
        yield stack.enter_context(open_binary(path))


@cache
def _sha256(path: str, size: int, changed: int) -> str:
    """sha256 of a file, kept until its size or the time it was changed at differs."""
    return file_sha256(Path(path))


def _members(shard: Shard, stream: BinaryIO) -> Iterator[tuple[str, Member]]:
    """The members of the shard's samples, where its tag is the right codec's."""
    members = tar_members(stream)
    first = next(members, None)
    tag = read_tag(stream, first)
    if shard.tag is not None and tag != shard.tag:
        raise InputError(
            f"Expected {describe(shard.tag)}, in {public(shard.url)}, as its manifest says, but it"
            f" holds {describe(tag)}. Encode the images again with `lit-mbldm encode`."
        )
    members = chain([first] if first else [], members)
    return sample_members(members, tag is not None, shard.classes is not None)


def _samples(span: Span, stream: BinaryIO) -> Iterator[tuple[str, bytes | ImageError, int | None]]:
    """Key, contents and label of the span's samples, each as soon as both are read."""
    shard, number = span.shard, 0
    for key, group in groupby(_members(shard, stream), itemgetter(0)):
        data, label, wanted = None, None, number >= span.start
        for _, member in group:
            if is_label(member.name):
                label = read_label(stream, member) if wanted and label is None else label
            elif data is None:
                data = _contents(stream, member) if wanted else b""
            if data is not None and (label is not None or shard.classes is None):
                break
        if data is not None:
            number += 1
            if wanted:
                yield key, data, label
            if number == span.stop:
                return


def _contents(stream: BinaryIO, member: Member) -> bytes | ImageError:
    try:
        return read_member(stream, member)
    except ImageError as error:
        return error
