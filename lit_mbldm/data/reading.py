"""Undecoded samples of shards, in order, by WebDataset's tar readers."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import webdataset

from lit_mbldm.data.codec_tag import CodecTag, take_tag
from lit_mbldm.data.images import ImageError
from lit_mbldm.data.locate import FirstMembers, Shard
from lit_mbldm.data.manifest import MANIFEST
from lit_mbldm.errors import InputError
from lit_mbldm.storage.opening import BUFFER_BYTES, open_binary
from lit_mbldm.storage.urls import base_name, public

OnSkip = Callable[[str, Exception, int], None]


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
        sha256: that the shard must have; only for a span of all its samples.
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


class ChangedShardError(ImageError):
    """A shard whose samples are all there, but which differs from its manifest."""


def whole(shard: Shard) -> Span:
    """All samples of a shard; reading them compares it with its manifest."""
    return Span(shard.url, 0, shard.count, shard.start, shard.tag, shard.sha256)


def spans(shards: Sequence[Shard], start: int, stop: int) -> list[Span]:
    """Where samples start to stop - 1 of all shards in a row lie.

    The row is a circle: positions from the total number on begin again at the first shard. At
    most one whole turn.
    """
    total = sum(shard.count for shard in shards)
    found, begin = [], 0
    for shard in [*shards, *shards]:
        first, last = max(start, begin) - begin, min(stop, begin + shard.count) - begin
        if first < last:
            found.append(Span(shard.url, first, last, shard.start + first, shard.tag))
        begin += shard.count
    assert 0 <= start < max(total, 1)
    assert stop - start <= total
    return found


def read_span(span: Span, on_skip: OnSkip) -> Iterator[Sample]:
    """Read the samples of a span.

    Args:
        span: which.
        on_skip: called once, with the shard's name, the error and the number of samples that are
            lost by it, where the shard is missing, unreadable or ends early, or is changed (a
            ChangedShardError, after the last sample, and 0). The error's cause is an OSError where
            the shard may be whole and could not be reached. Called too with each image that is
            not the first of its sample.

    Raises:
        InputError: the shard holds codes of another codec than it should.
    """
    errors: list[Exception] = []
    digest = hashlib.sha256()

    def note(error: Exception) -> bool:
        errors.append(error)
        return True

    def note_second(member: str, error: ImageError) -> None:
        if span.start < first.count <= span.stop:
            on_skip(f"{span.name}/{member}", error, 1)

    first = FirstMembers(note_second)
    wanted, count = span.stop - span.start, 0
    try:
        with _open(span, digest) as stream:
            _check_tag(span, stream)
            files = webdataset.tariterators.tar_file_expander(
                [{"url": span.name, "stream": stream}],
                handler=note,
                select_files=first,
            )
            groups = webdataset.tariterators.group_by_keys(files, handler=note)
            for group in islice(groups, span.start, span.stop):
                data = next(value for name, value in group.items() if not name.startswith("__"))
                count += 1
                yield Sample(f"{span.name}/{group['__key__']}", span.index + count - 1, data)
            while span.sha256 is not None and stream.read(BUFFER_BYTES):
                pass
    except (OSError, tarfile.TarError, _TagError) as error:
        note(error)
    reason = f" ({_reason(errors[0])})" if errors else ""
    if count < wanted:
        lost = ImageError(f"ends after {span.start + count} samples{reason}")
    elif span.sha256 not in (None, digest.hexdigest()):
        lost = ChangedShardError(f"differs from the sha256 in its {MANIFEST}{reason}")
    else:
        return
    lost.__cause__ = errors[0] if errors else None
    on_skip(span.name, lost, wanted - count)


class _Hashed(io.RawIOBase):
    """A stream whose bytes go into a digest as they are read."""

    def __init__(self, stream: io.BufferedReader, digest: "hashlib._Hash") -> None:
        super().__init__()
        self._stream = stream
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto1(buffer)  # what comes before a fault is kept
        self._digest.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open(span: Span, digest: "hashlib._Hash") -> io.BufferedReader:
    stream = open_binary(span.url)
    if span.sha256 is None:
        return stream
    return io.BufferedReader(_Hashed(stream, digest), BUFFER_BYTES)


class _TagError(Exception):
    """A tag that cannot be read."""


def _check_tag(span: Span, stream: io.BufferedReader) -> None:
    """Read the tag at the head, which only the codes of the right codec have."""
    try:
        tag = take_tag(stream)
    except ValueError as error:
        raise _TagError(str(error)) from error
    if span.tag is not None and tag != span.tag:
        held = "images" if tag is None else f"codes of {tag.fingerprint[:12]}…, shape {tag.shape}"
        raise InputError(
            f"Expected codes of {span.tag.fingerprint[:12]}…, shape {span.tag.shape}, in"
            f" {public(span.url)}, as its manifest says, but it holds {held}. Encode the images"
            " again with `lit-mbldm encode`."
        )


def _reason(error: Any) -> str:
    """The error's own words: WebDataset adds the stream and the name to them."""
    if isinstance(error, OSError) and error.strerror:
        return str(error)
    return str(error.args[0]).partition(" @ <")[0] if error.args else type(error).__name__
