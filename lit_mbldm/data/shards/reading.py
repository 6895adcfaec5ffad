"""Undecoded samples of shards, in order, of shards that are what their manifest tells."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from lit_mbldm.data.shards.codec_tag import CodecTag, tag_of
from lit_mbldm.data.shards.locate import Shard, samples
from lit_mbldm.data.shards.manifest import MANIFEST
from lit_mbldm.data.shards.tar_reader import Member, read_member, tar_members
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import open_binary
from lit_mbldm.storage.urls import base_name, is_url, public

OnSkip = Callable[[str, Exception, int], None]
_known: dict[tuple[int, ...], str] = {}  # sha256 of local files that this process has read


@dataclass(frozen=True)
class Sample:
    """One undecoded sample.

    Attributes:
        name: `shard/key`.
        index: its number in the set.
        data: bytes of its image or codes.
    """

    name: str
    index: int
    data: bytes


@dataclass(frozen=True)
class Span:
    """Samples start to stop - 1 of one shard.

    Attributes:
        url: of the shard.
        start: first sample.
        stop: after the last one.
        index: number in the set of the first one.
        tag: that the shard must have, where it holds codes.
        sha256: that the shard must have; a URL is copied to a temporary file to see to it.
    """

    url: str
    start: int
    stop: int
    index: int
    tag: CodecTag | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name of the shard."""
        return base_name(self.url)


class LostShardError(ImageError):
    """A shard that cannot be reached or was changed: another try or copy may give all of it."""


def whole(shard: Shard) -> Span:
    """All samples of a shard."""
    return Span(shard.url, 0, shard.count, shard.start, shard.tag, shard.sha256)


def spans(shards: Sequence[Shard], start: int, stop: int) -> list[Span]:
    """Where samples start to stop - 1 of all shards in a row lie.

    The row is a circle: positions from the total number on begin again at the first shard. At
    most one whole turn. URLs are not compared with their sha256, which takes the whole file.
    """
    total = sum(shard.count for shard in shards)
    found, begin = [], 0
    for shard in [*shards, *shards]:
        first, last = max(start, begin) - begin, min(stop, begin + shard.count) - begin
        if first < last:
            sha256 = None if is_url(shard.url) else shard.sha256
            found.append(Span(shard.url, first, last, shard.start + first, shard.tag, sha256))
        begin += shard.count
    assert 0 <= start < max(total, 1)
    assert stop - start <= total
    return found


def read_span(span: Span, on_skip: OnSkip) -> Iterator[Sample]:
    """Read the samples of a span; none of a shard that differs from its sha256.

    Args:
        span: which.
        on_skip: called with the shard's name, the error and the number of samples that are lost by
            it: once where the shard ends early or is damaged, or, with a LostShardError, where it
            cannot be reached or differs from its sha256. Called too with each sample that is too
            large, and each image that is not the first of its sample.

    Raises:
        InputError: the shard holds codes of another codec than it should.
    """
    number, count = -1, 0
    lost: Exception | None = None

    def second(member: str) -> None:
        if span.start <= number < span.stop:
            key = base_name(member).partition(".")[0]
            reason = f"one more of the sample {key}, as names count up to the first dot"
            on_skip(f"{span.name}/{member}", ImageError(reason), 1)

    try:
        with _open(span) as stream:
            for number, (key, member) in enumerate(samples(_members(span, stream), second)):
                if number >= span.stop:
                    break
                if number >= span.start:
                    name = f"{span.name}/{key}"
                    try:
                        data = read_member(stream, member)
                    except ImageError as error:
                        on_skip(name, error, 1)
                    else:
                        yield Sample(name, span.index + number - span.start, data)
                    count += 1
    except (OSError, tarfile.TarError, LostShardError) as error:
        lost = error
    wanted = span.stop - span.start
    if count == wanted:
        return
    if not isinstance(lost, LostShardError):
        reason = f" ({lost})" if lost else ""
        kind = LostShardError if isinstance(lost, OSError) else ImageError
        lost = kind(f"ends after {span.start + count} samples{reason}")
    on_skip(span.name, lost, wanted - count)


@contextmanager
def _open(span: Span) -> Iterator[BinaryIO]:
    """Open a shard; raises LostShardError where it differs from its sha256."""
    with ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(open_binary(span.url))
        if span.sha256 is not None:
            if is_url(span.url):
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, copy)
                stream = copy
                sha256 = _sha256(stream)
            else:
                stat = os.fstat(stream.fileno())
                key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
                sha256 = _known[key] = _known.get(key) or _sha256(stream)
            if sha256 != span.sha256:
                raise LostShardError(
                    f"differs from the sha256 in its {MANIFEST}: copy or write it again, or remove"
                    " the manifest to use it as it is"
                )
        yield stream


def _sha256(stream: BinaryIO) -> str:
    """Hash a file from its beginning, and go back there."""
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    stream.seek(0)
    return digest


def _members(span: Span, stream: BinaryIO) -> Iterator[Member]:
    """The shard's members, where its tag is the right codec's."""
    members = tar_members(stream)
    first = next(members, None)
    tag = tag_of(stream, first)
    if span.tag is not None and tag != span.tag:
        held = "images" if tag is None else f"codes of {tag.fingerprint[:12]}…, shape {tag.shape}"
        raise InputError(
            f"Expected codes of {span.tag.fingerprint[:12]}…, shape {span.tag.shape}, in"
            f" {public(span.url)}, as its manifest says, but it holds {held}. Encode the images"
            " again with `lit-mbldm encode`."
        )
    return chain([first] if first else [], members)
