"""Undecoded samples of shards, in order, of shards that are what their manifest tells."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO

from lit_mbldm.data.shards.locate import Shard, describe, samples
from lit_mbldm.data.shards.manifest import MANIFEST
from lit_mbldm.data.shards.tar import Member, read_member, read_tag, tar_members
from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import open_binary
from lit_mbldm.storage.urls import is_url, public

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
    """Samples start to stop - 1 of a shard.

    Attributes:
        verified: whether a shard of a URL is copied to a temporary file and compared with the
            sha256 that its manifest tells, as local ones always are.
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
    """Where samples start to stop - 1 of all shards in a row lie.

    The row is a circle: positions from the total number on begin again at the first shard. At
    most one whole turn.
    """
    found, begin = [], 0
    for shard in [*shards, *shards]:
        first, last = max(start, begin) - begin, min(stop, begin + shard.count) - begin
        if first < last:
            found.append(Span(shard, first, last))
        begin += shard.count
    return found


def read_span(span: Span, on_skip: OnSkip) -> Iterator[Sample]:
    """Read the samples of a span; none of a shard that differs from its sha256.

    Args:
        span: which.
        on_skip: called with the shard's name, the error and the number of samples that are lost by
            it: once where the shard ends early or is damaged, or, with a LostShardError, where it
            cannot be reached or differs from its sha256. Called too with each sample that is too
            large.

    Raises:
        InputError: the shard holds codes of another codec than it should.
    """
    shard, number = span.shard, span.start
    lost: Exception | None = None
    try:
        with _open(span) as stream:
            for key, member in islice(_samples(shard, stream), span.start, span.stop):
                try:
                    data = read_member(stream, member)
                except ImageError as error:
                    on_skip(f"{shard.name}/{key}", error, 1)
                else:
                    yield Sample(f"{shard.name}/{key}", shard.start + number, data)
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


@contextmanager
def _open(span: Span) -> Iterator[BinaryIO]:
    """Open a shard; raises LostShardError where it differs from its sha256."""
    shard, remote = span.shard, is_url(span.shard.url)
    with ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(open_binary(shard.url))
        if shard.entry is not None and (span.verified or not remote):
            if remote:
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, copy)
                stream = copy
            if _sha256(stream) != shard.entry.sha256:
                raise LostShardError(
                    f"differs from the sha256 in its {MANIFEST}: copy or write it again, or remove"
                    " the manifest to use it as it is"
                )
        yield stream


def _sha256(stream: BinaryIO) -> str:
    """sha256 of a file from its beginning, where it stands again; kept until the file changes."""
    stat = os.fstat(stream.fileno())
    key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in _known:
        stream.seek(0)
        _known[key] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    stream.seek(0)
    return _known[key]


def _samples(shard: Shard, stream: BinaryIO) -> Iterator[tuple[str, Member]]:
    """The shard's samples, where its tag is the right codec's."""
    members = tar_members(stream)
    first = next(members, None)
    tag = read_tag(stream, first)
    if shard.tag is not None and tag != shard.tag:
        raise InputError(
            f"Expected {describe(shard.tag)}, in {public(shard.url)}, as its manifest says, but it"
            f" holds {describe(tag)}. Encode the images again with `lit-mbldm encode`."
        )
    return samples(chain([first] if first else [], members), tag is not None)
