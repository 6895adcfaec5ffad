"""Writing one tar shard: the same members give the same bytes."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from lit_mbldm.data.shards.manifest import ShardEntry, file_sha256
from lit_mbldm.storage.atomic import replacing

CODEC_MEMBER = "__codec__"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> ShardEntry:
    """Write a shard under a temporary name and rename it.

    Names may be of any length and alphabet.

    Args:
        path: the shard.
        members: (name, contents), written in this order; all but `__codec__` count as samples.
    """
    count = 0
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
                count += name != CODEC_MEMBER
        entry = ShardEntry(path.name, count, temporary.stat().st_size, file_sha256(temporary))
    return entry
