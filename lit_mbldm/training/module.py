"""What LightningModules here share: an optimiser, whole checkpoints, mostly a frozen codec."""

import math
import random
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.entries.about import About, about_module
from lit_mbldm.entries.checkpoint import CHECKPOINT_KEY
from lit_mbldm.entries.load import load_codec
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError, check_choice
from lit_mbldm.parallel.ranks import all_equal, from_first
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.muon import Muon

TRAINING, VALIDATION = range(2)
OptimizerName = Literal["adam", "adamw", "muon"]
Decay = Literal["linear", "cosine"]


class TrainingModule(L.LightningModule):
    """What is trained; the base of all LightningModules here, and their args.

    Attributes:
        loss: of a batch and the key of its noise, the mean over the batch.
    """

    loss: Callable[..., Tensor]

    def __init__(
        self,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__()
        check_choice(OptimizerName, optimizer=optimizer)
        check_choice(Literal["linear", "cosine", None], decay=decay)
        self.learning_rate = learning_rate
        self.betas = betas
        self.warmup_steps = warmup_steps
        self.optimizer = optimizer
        self.decay = decay
        self.noise_seed = 0
        # for those who find its checkpoint
        self.training_config: dict[str, Any] = {}
        self.base_model: str | None = None

    def streams(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> SampleStreams:
        """One random stream for each sample, keyed by its number in the data set, `index` (B,)."""
        return SampleStreams([(*key, number) for number in batch["index"].tolist()], self.device)

    def images_of(self, batch: dict[str, Tensor]) -> Tensor:
        """The images of a batch, (B, 3, H, W) uint8 RGB; raises InputError where it has none."""
        if "images" not in batch:
            raise InputError(
                f"A {type(self).__name__} learns from images, but the data has codes only. Train it"
                " on image shards (`lit-mbldm shards`) or crops instead of code shards."
            )
        return batch["images"]

    def training_key(self) -> tuple[int, ...]:
        """Key of the noise of the epoch in training."""
        return self.noise_seed, TRAINING, self.current_epoch

    def validation_key(self) -> tuple[int, ...]:
        """Key of the noise in validation, the same in every epoch and run."""
        return 0, VALIDATION

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step on a batch as of `loss`."""
        loss = self.loss(batch, self.training_key())
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss with the same noise every epoch."""
        loss = self.loss(batch, self.validation_key())
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch["index"]))

    def configure_optimizers(self) -> Any:
        """The optimiser, with a linear warm-up and a decay to zero at the run's last step."""
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = Muon(self, self.learning_rate, self.betas)
        else:
            kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
            parameters = [p for p in self.parameters() if p.requires_grad]
            optimizer = kind(parameters, self.learning_rate, self.betas)
        if not self.warmup_steps and self.decay is None:
            return optimizer
        total = self.trainer.estimated_stepping_batches if self.decay else math.inf
        if self.decay and math.isinf(total):
            raise InputError("A learning rate decays over a run of known length: set max_steps.")

        def scale(step: int) -> float:
            left = max(0.0, 1 - step / total)
            if self.decay == "cosine":
                left = math.sin(left * math.pi / 2) ** 2
            return left * min(1.0, (step + 1) / max(1, self.warmup_steps))

        schedule = LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Take the run's seed."""
        if self.trainer.ckpt_path is None:
            self.noise_seed = from_first(torch.initial_seed(), self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch, which dropout draws from, as an unbroken run would at this batch."""
        key = f"{self.noise_seed}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(random.Random(key).getrandbits(63))

    def trained(self) -> nn.Module:
        """What `load_pretrained` makes of a checkpoint; it has the same weights by name."""
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `load_pretrained` needs."""
        checkpoint[CHECKPOINT_KEY] = {
            "model": describe(self.trained()),
            "noise_seed": self.noise_seed,
            "config": self.training_config,
            "base_model": self.base_model,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the run's seed, and what it started from."""
        kept = checkpoint.get(CHECKPOINT_KEY, {})
        self.noise_seed = kept.get("noise_seed", self.noise_seed)
        self.base_model = kept.get("base_model")


class CodecModule(TrainingModule):
    """A model around a frozen codec; the base of the diffusion models and the refiner."""

    def __init__(
        self,
        codec: str | ImageCodec,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, warmup_steps, optimizer, decay)
        self.codec = load_codec(codec) if isinstance(codec, str) else codec

    def on_fit_start(self) -> None:
        """Refuse a codec not in float32, or another in each process."""
        if any(b.is_floating_point() and b.dtype != torch.float32 for b in self.codec.buffers()):
            raise InputError(
                f"precision: {self.trainer.precision} changes the codec, which would then give"
                " other codes. Use 32-true, bf16-mixed or 16-mixed."
            )
        if not all_equal(self.codec.image_fingerprint):
            raise InputError(
                "The processes have different codecs: their names stand for different files. Name a"
                " commit (org/repo@commit), or see that the machines' folders agree."
            )
        # the other facts are of the weights that it was loaded with
        vars(self)["about"] = About(sampling=about_module(self).sampling)
        vars(self).pop("indexed_codes", None)
        super().on_fit_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the codec's fingerprint, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["fingerprint"] = self.codec.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another codec."""
        found = checkpoint.get(CHECKPOINT_KEY, {}).get("fingerprint")
        if found != self.codec.fingerprint:
            raise InputError(
                "The checkpoint was trained on codes of another codec: expected fingerprint"
                f" {self.codec.fingerprint}, got {found}. Name the codec it was trained with."
            )
        super().on_load_checkpoint(checkpoint)
