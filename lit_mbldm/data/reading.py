"""Undecoded samples of shards, in order, by WebDataset's tar readers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import webdataset

from lit_mbldm.data.images import ImageError
from lit_mbldm.data.locate import Shard, sample_key

OnSkip = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Sample:
    """One undecoded sample: `shard/key`, and the bytes of its image or codes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Span:
    """Samples start to stop - 1 of one shard."""

    path: Path
    start: int
    stop: int


def spans(shards: list[Shard], start: int, stop: int) -> list[Span]:
    """Where samples start to stop - 1 of all shards in a row lie.

    The row is a circle: positions from the total number on begin again at the first shard. At
    most one whole turn.
    """
    total = sum(shard.count for shard in shards)
    found, begin = [], 0
    for shard in [*shards, *shards]:
        first, last = max(start, begin), min(stop, begin + shard.count)
        if first < last:
            found.append(Span(shard.path, first - begin, last - begin))
        begin += shard.count
    assert 0 <= start < max(total, 1)
    assert stop - start <= total
    return found


def read_span(span: Span, on_skip: OnSkip) -> Iterator[Sample]:
    """Read the samples of a span.

    Args:
        span: which.
        on_skip: called with the shard's name and the error where the archive is
            unreadable or ends early.
    """
    failed, count = False, 0

    def skip(error: Exception) -> bool:
        nonlocal failed
        failed = True
        on_skip(span.path.name, error)
        return True

    try:
        with span.path.open("rb") as stream:
            files = webdataset.tariterators.tar_file_expander(
                [{"url": span.path.name, "stream": stream}],
                handler=skip,
                select_files=lambda name: sample_key(name) is not None,
            )
            groups = webdataset.tariterators.group_by_keys(files, handler=skip)
            for group in islice(groups, span.start, span.stop):
                count += 1
                data = next(value for name, value in group.items() if not name.startswith("__"))
                yield Sample(f"{group['__url__']}/{group['__key__']}", data)
    except OSError as error:
        skip(error)
    else:
        if not failed and count < span.stop - span.start:
            skip(ImageError(f"ends after {span.start + count} samples"))
