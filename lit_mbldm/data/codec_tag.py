"""The codec's tag at the head of a code shard."""

import io
import json
import tarfile
from dataclasses import dataclass

from lit_mbldm.data.tar_writer import CODEC_MEMBER
from lit_mbldm.storage.opening import open_binary

MAX_TAG_BYTES = 1 << 16


@dataclass(frozen=True)
class CodecTag:
    """The `__codec__` member of a code shard: the codec's fingerprint and (S, h, w)."""

    fingerprint: str
    shape: tuple[int, int, int]


def read_tag(url: str) -> CodecTag | None:
    """The tag of a shard, None where it holds images.

    Raises:
        tarfile.TarError: no tar archive.
        ValueError: an unreadable tag, or codes without one.
        OSError: the shard cannot be read.
    """
    with open_binary(url) as stream:
        return take_tag(stream)


def take_tag(stream: io.BufferedReader) -> CodecTag | None:
    """Read the tag at the beginning of a stream of `open_binary`, and nothing more of it.

    Raises:
        tarfile.TarError: no tar archive.
        ValueError: an unreadable tag, or codes without one.
        OSError: the stream cannot be read.
    """
    header = stream.peek(tarfile.BLOCKSIZE)[: tarfile.BLOCKSIZE]
    member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    if member.name != CODEC_MEMBER:
        if member.name.endswith(".npy"):
            raise ValueError("codes without the codec's fingerprint; encode the images again")
        return None
    blocks = -(-member.size // tarfile.BLOCKSIZE)
    if member.size > MAX_TAG_BYTES:
        raise ValueError(f"a {CODEC_MEMBER} of {member.size} bytes")
    data = stream.read((1 + blocks) * tarfile.BLOCKSIZE)[tarfile.BLOCKSIZE :]
    try:
        fields = json.loads(data[: member.size])
        S, h, w = (int(n) for n in fields["shape"])
        return CodecTag(str(fields["fingerprint"]), (S, h, w))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an unreadable {CODEC_MEMBER}: {error!r}") from error
