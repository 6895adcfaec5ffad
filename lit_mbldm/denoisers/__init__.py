"""Denoisers: networks from (z_t, t/T, self-conditioning) to a prediction."""

from lit_mbldm.denoisers.unet import UNet

__all__ = ["UNet"]
