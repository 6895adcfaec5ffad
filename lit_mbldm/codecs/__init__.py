"""Codecs: images to codes and back; frozen."""

from lit_mbldm.codecs.patch_codec import PatchCodec

__all__ = ["PatchCodec"]
