"""Reading an LMDB in a process of its own: a damaged one kills the process that maps it."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from lit_mbldm.data.sources.images import ImageError
from lit_mbldm.data.sources.raw_image import check_bytes
from lit_mbldm.parallel.worker_process import WorkerDiedError, WorkerProcess


class LmdbError(Exception):
    """What is wrong with an LMDB, in LMDB's words or by the way its reader died."""


class Head(NamedTuple):
    """What an LMDB says of itself: entries, bytes it needs, number of its last transaction."""

    entries: int
    size: int
    transaction: int


class LmdbReader:
    """A process that reads one LMDB.

    Args:
        data: the file data.mdb. Its lock file is neither read nor written.

    Each method raises LmdbError where the LMDB cannot be read, WorkerDiedError where the process
    was killed by another.
    """

    def __init__(self, data: Path) -> None:
        self._data = str(data)
        self._process = WorkerProcess("lit_mbldm.data.sources.lmdb_worker")

    def head(self) -> Head:
        """What its first pages say."""
        head: Head = self._ask("head", self._data)
        return head

    def keys(self, start: bytes, most: int) -> list[bytes]:
        """The first keys from `start` on, at most so many; the file is mapped anew."""
        keys: list[bytes] = self._ask("keys", self._data, start, most)
        return keys

    def value(self, key: bytes) -> bytes:
        """The value of one of the keys given last.

        Raises:
            ImageError: it cannot be read, or is too large to be an image.
        """
        value: bytes = self._ask("value", key)
        return value

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _ask(self, *question: object) -> Any:
        try:
            answer = self._process.ask(question)
        except WorkerDiedError as error:
            if error.signal in (None, "SIGKILL", "SIGTERM"):
                raise
            raise LmdbError(f"reading it ends in {error.signal}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


class Answers:
    """The other side: what the process answers."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._transaction: lmdb.Transaction | None = None

    def __call__(self, question: tuple[Any, ...]) -> object:
        """Answer a question: its kind, and what belongs to it; an error is an answer too."""
        kinds: dict[str, Callable[..., object]]
        kinds = {"head": self._head, "keys": self._keys, "value": self._value}
        try:
            return kinds[question[0]](*question[1:])
        except ImageError as error:
            return error
        except lmdb.Error as error:
            return LmdbError(str(error))

    def _head(self, data: str) -> Head:
        with _open(data) as env:
            info, stat = env.info(), env.stat()
        needed = (info["last_pgno"] + 1) * stat["psize"]
        return Head(stat["entries"], needed, info["last_txnid"])

    def _keys(self, data: str, start: bytes, most: int) -> list[bytes]:
        """Map the file anew: the pages read count as the memory of the process."""
        self._opened.close()
        env = self._opened.enter_context(_open(data))
        self._transaction = self._opened.enter_context(env.begin(buffers=True))
        with self._transaction.cursor() as cursor:
            found: list[bytes] = []
            more = cursor.set_range(start)
            while more and len(found) < most:
                found.append(bytes(cursor.key()))
                more = cursor.next()
            return found

    def _value(self, key: bytes) -> bytes:
        assert self._transaction is not None
        try:
            value = self._transaction.get(key)
        except lmdb.Error as error:
            raise ImageError(f"unreadable in the LMDB ({error})") from error
        if value is None:
            raise ImageError("not found in the LMDB, which is damaged")
        check_bytes(len(value))
        return bytes(value)


def _open(data: str) -> lmdb.Environment:
    """Open without a lock file, which read-only storage may not allow; one pass needs readahead."""
    return lmdb.open(data, subdir=False, readonly=True, lock=False)
