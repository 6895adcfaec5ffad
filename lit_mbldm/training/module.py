"""What every LightningModule here shares: a frozen codec, Adam, checkpoints that rebuild."""

from typing import Any

import lightning as L
import torch
from torch.optim.lr_scheduler import LambdaLR

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.errors import InputError
from lit_mbldm.randomness import SampleStreams
from lit_mbldm.zoo.load import CHECKPOINT_KEY, load_codec
from lit_mbldm.zoo.tree import describe


class CodecModule(L.LightningModule):
    """A model around a codec; the base of the diffusion models and the refiner.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        learning_rate: of Adam.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
    """

    def __init__(
        self,
        codec: str | PatchCodec,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self.codec = load_codec(codec) if isinstance(codec, str) else codec
        self.learning_rate = learning_rate
        self.betas = betas
        self.warmup_steps = warmup_steps

    def streams(self, count: int, key: tuple[int, ...]) -> SampleStreams:
        """One random stream for each of `count` samples of this process."""
        keys = [(*key, self.global_rank, i) for i in range(count)]
        return SampleStreams(keys, self.device)

    def training_key(self, batch_idx: int) -> tuple[int, ...]:
        """Key of a training batch's noise."""
        return torch.initial_seed(), 0, self.current_epoch, batch_idx

    def configure_optimizers(self) -> Any:
        """Adam, with a linear warm-up."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, self.learning_rate, self.betas)
        if not self.warmup_steps:
            return optimizer
        schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuse a precision that rounds the codec.

        Raises:
            InputError: the codec is no longer in float32.
        """
        if any(book.dtype != torch.float32 for book in self.codec.codebooks()):
            raise InputError(
                f"precision: {self.trainer.precision} rounds the codec, which would then give other"
                " codes. Use 32-true, bf16-mixed or 16-mixed."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `load_pretrained` needs to rebuild the model."""
        checkpoint[CHECKPOINT_KEY] = {
            "model": describe(self),
            "fingerprint": self.codec.fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another codec."""
        found = checkpoint.get(CHECKPOINT_KEY, {}).get("fingerprint")
        if found != self.codec.fingerprint:
            raise InputError(
                "The checkpoint was trained on codes of another codec: expected fingerprint"
                f" {self.codec.fingerprint}, got {found}. Name the codec it was trained with."
            )
