"""Codecs: images to codes and back; frozen."""

from lit_mbldm.codecs.image_codec import ImageCodec
from lit_mbldm.codecs.joint_codec import JointCodec
from lit_mbldm.codecs.patch_codec import PatchCodec

__all__ = ["ImageCodec", "JointCodec", "PatchCodec"]
