"""Networks: denoisers from (z_t, t/T, self-conditioning) to a prediction, and others."""

from lit_mbldm.denoisers.autoencoder import ConvAutoencoder
from lit_mbldm.denoisers.implicit import ImplicitNetwork
from lit_mbldm.denoisers.implicit_autoencoder import ImplicitAutoencoder
from lit_mbldm.denoisers.multi_stage_unet import MultiStageUNet
from lit_mbldm.denoisers.refiner_unet import RefinerUNet
from lit_mbldm.denoisers.token_transformer import TokenTransformer
from lit_mbldm.denoisers.unet import UNet

__all__ = [
    "ConvAutoencoder",
    "ImplicitAutoencoder",
    "ImplicitNetwork",
    "MultiStageUNet",
    "RefinerUNet",
    "TokenTransformer",
    "UNet",
]
