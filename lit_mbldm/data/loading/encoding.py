"""EncodingDataModule: a data module whose batches reach the model with codes; its ReferenceSet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from tqdm import tqdm

from lit_mbldm.data.loading.loader import EpochLoader
from lit_mbldm.data.loading.streams import Share
from lit_mbldm.data.prepare.shard_codes import Codec
from lit_mbldm.parallel.ranks import is_first

_AT_ONCE = 64  # images that a device decodes


class EncodingDataModule(lightning.LightningDataModule):
    """A data module whose batches reach a model with `"codes"`, uint8 (B, S, h, w).

    Beside them lies `"index"`, int64 (B,) on the CPU: the samples' numbers in the set, which key
    the training's noise.

    A batch of images, uint8 (B, 3, H, W), is encoded on the model's device with the model's own
    codec, if it has one, and keeps its `"images"`. Labelled data has `"label"`, int64 (B,), and
    after `setup` the classes' `class_names`.
    """

    batch_size: int
    seed: int
    class_names: list[str] | None = None

    @property
    def codec(self) -> Codec | None:
        """The codec of the model in training, None where there is none."""
        return getattr(getattr(self.trainer, "lightning_module", None), "codec", None)

    @property
    def place(self) -> tuple[int, int]:
        """Number of this process among the trainer's, and how many there are."""
        return getattr(self.trainer, "global_rank", 0), getattr(self.trainer, "world_size", 1)

    def share(self, **options: Any) -> Share:
        """This process's share of the batches."""
        return Share(self.batch_size, *self.place, seed=self.seed, **options)

    @property
    def device(self) -> torch.device:
        """That this process trains on."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def current_epoch(self) -> int:
        """The trainer's epoch."""
        return 0 if self.trainer is None else self.trainer.current_epoch

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
        return {**moved, "index": batch["index"]}

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Add the codes of the batch's images, for a model with a codec."""
        if "codes" in batch or self.codec is None:
            return batch
        with torch.no_grad():
            return {**batch, "codes": self.codec.encode(batch["images"])}


@dataclass(frozen=True)
class ReferenceSet:
    """This process's share of a set of images as scores see it: in order, without flips.

    Attributes:
        fingerprint: of the whole set, of JSON's types.
        count: samples of all processes together.
        start: number of this process's first sample; the next are counted on from it.
        batches: `{kind: uint8 (B, …)}`.
        name: what the set is, such as "held-out images".
    """

    kind: Literal["images", "codes"]
    fingerprint: Any
    count: int
    start: int
    batches: EpochLoader
    name: str

    def images(
        self, codec: Codec, device: torch.device, progress: str | None = None
    ) -> Iterator[torch.Tensor]:
        """Its images or decoded codes, (b, 3, H, W) uint8; `progress` is the name of a bar."""
        hidden = progress is None or not is_first()
        for batch in tqdm(self.batches, desc=progress, unit="batch", disable=hidden):
            for rows in batch[self.kind].split(_AT_ONCE):
                rows = rows.to(device)
                yield codec.decode(rows) if self.kind == "codes" else rows
