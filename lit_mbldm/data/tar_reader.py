"""Walking through the headers of a tar archive, noticing where it is cut off."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from lit_mbldm.data.images import ImageError
from lit_mbldm.storage.opening import open_binary


def tar_members(url: str | Path) -> Iterator[tarfile.TarInfo | ImageError]:
    """The regular files of an uncompressed tar; at last an ImageError where it ends early."""
    try:
        with (
            open_binary(url) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            while (member := archive.next()) is not None:
                if member.isreg():
                    yield member
                archive.members = []  # type: ignore[attr-defined]
            end = archive.offset
        with open_binary(url) as stream:
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                yield ImageError(f"corrupt or cut off at byte {end}")
    except (tarfile.TarError, OSError) as error:
        yield ImageError(f"truncated or corrupt tar archive ({error})")
