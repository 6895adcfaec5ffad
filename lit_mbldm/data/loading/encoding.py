"""Images to codes between the loader and the model, for every data module."""

from typing import Any

import lightning
import torch

from lit_mbldm.data.prepare.shard_codes import Codec
from lit_mbldm.errors import InputError


class EncodingDataModule(lightning.LightningDataModule):
    """A data module whose batches reach the model with `"codes"`, uint8 (B, S, h, w).

    Beside them lies `"index"`, int64 (B,) on the CPU: the samples' numbers in the set, which key
    the training's noise.

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

    @property
    def device(self) -> torch.device:
        """That this process trains on."""
        return (
            self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        )

    def current_epoch(self) -> int:
        """The trainer's epoch."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    def move_to_batch(self, batches: int) -> None:
        """Count so many batches of the epoch as done."""
        assert self.trainer is not None
        current = self.trainer.fit_loop.epoch_loop.batch_progress.current
        shift = batches - current.ready
        for count in ("ready", "started", "processed", "completed"):
            setattr(current, count, getattr(current, count) + shift)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move a batch but for its `index`, which keys random numbers on the CPU."""
        moved: dict[str, Any] = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, **{key: batch[key] for key in ("index",) if key in batch}}

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
