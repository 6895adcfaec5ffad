"""The codec's tag at the head of a code shard."""

import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from lit_mbldm.data.shards.manifest import is_shape, read_json
from lit_mbldm.data.shards.tar_reader import Member, read_member, tar_members
from lit_mbldm.data.shards.tar_writer import CODEC_MEMBER
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
        tarfile.TarError: no tar archive, an unreadable tag, or codes without one.
        OSError: the shard cannot be read.
    """
    with open_binary(url) as stream:
        return tag_of(stream, next(tar_members(stream), None))


def tag_of(stream: BinaryIO, first: Member | None) -> CodecTag | None:
    """The tag of a shard, None where it holds images; only a tag is read.

    Args:
        stream: that stands at the contents of the first member.
        first: the shard's first member.

    Raises:
        tarfile.TarError: no member, an unreadable tag, or codes without one.
        OSError: the stream cannot be read.
    """
    if first is None:
        raise tarfile.ReadError("a tar archive without files")
    if first.name != CODEC_MEMBER:
        if first.name.lower().endswith(".npy"):
            raise tarfile.ReadError("codes without the codec's fingerprint; encode them again")
        return None
    if first.size > MAX_TAG_BYTES:
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: {first.size} bytes")
    try:
        fields = read_json(read_member(stream, first))
        fingerprint, shape = fields["fingerprint"], fields["shape"]
    except (KeyError, TypeError, ValueError) as error:
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: {error!r}") from error
    if not (isinstance(fingerprint, str) and is_shape(shape)):
        raise tarfile.ReadError(f"an unreadable {CODEC_MEMBER}: no fingerprint and (S, h, w)")
    S, h, w = shape
    return CodecTag(fingerprint, (S, h, w))
