"""Codecs: images to codes and back; frozen."""

from lit_mbldm.codecs.decoder_codec import DecoderCodec
from lit_mbldm.codecs.image_codec import ImageCodec
from lit_mbldm.codecs.joint_codec import JointCodec
from lit_mbldm.codecs.latents import IndexLatent, PrincipalLatent
from lit_mbldm.codecs.patch_codec import PatchCodec

__all__ = [
    "DecoderCodec",
    "ImageCodec",
    "IndexLatent",
    "JointCodec",
    "PatchCodec",
    "PrincipalLatent",
]
