"""Codecs: images to codes and back; frozen."""

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.bits import BitLatent
from lit_mbldm.codecs.channelwise import PatchCodec
from lit_mbldm.codecs.components import CoefficientLatent
from lit_mbldm.codecs.decoders import DecoderCodec
from lit_mbldm.codecs.implicit import ImplicitCodec
from lit_mbldm.codecs.joint import JointCodec
from lit_mbldm.codecs.latents import IndexLatent
from lit_mbldm.codecs.learned import BinaryCodec, ScalarCodec
from lit_mbldm.codecs.pixels import PixelCodec
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec

__all__ = [
    "BinaryCodec",
    "BitLatent",
    "CoefficientLatent",
    "DecoderCodec",
    "ImageCodec",
    "ImplicitCodec",
    "IndexLatent",
    "JointCodec",
    "PatchCodec",
    "PixelCodec",
    "ScalarCodec",
    "VectorQuantizedCodec",
]
