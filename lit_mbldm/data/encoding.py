"""Images to codes between the loader and the model, for every data module."""

from typing import Any, Protocol

import lightning
import torch
from torch import Tensor

from lit_mbldm.errors import InputError


class Codec(Protocol):
    """What the data needs of a codec; `lit_mbldm.codecs.PatchCodec` is one."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the codec's arrays."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to uint8 (B, S, h, w)."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(S, h, w); raises InputError for a size that does not fit."""


class EncodingDataModule(lightning.LightningDataModule):
    """A data module whose batches reach the model with `"codes"`, uint8 (B, S, h, w).

    A batch of images, uint8 (B, 3, H, W), is encoded on the model's device with the model's own
    codec and keeps its `"images"`.
    """

    @property
    def codec(self) -> Codec | None:
        """The codec of the model in training, None where there is none."""
        module = self.trainer.lightning_module if self.trainer is not None else None
        codec: Codec | None = getattr(module, "codec", None)
        return codec

    @property
    def rank(self) -> int:
        """Of this process among the trainer's."""
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        """Number of the trainer's processes."""
        return self.trainer.world_size if self.trainer is not None else 1

    def current_epoch(self) -> int:
        """The trainer's epoch."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Add the codes of the batch's images."""
        if "codes" in batch:
            return batch
        if self.codec is None:
            raise InputError(
                "Image batches need a model with a `codec` to encode them. Give the model a codec,"
                " or train on code shards (`lit-mbldm encode`)."
            )
        with torch.no_grad():
            return {**batch, "codes": self.codec.encode(batch["images"])}
