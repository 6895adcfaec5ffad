"""What a refiner makes of real images, at the end of its training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.pictures import save, table
from lit_mbldm.training.callbacks.pictures import log_folder, saved_checkpoint
from lit_mbldm.training.refiner import Refiner


class RefineImages(L.Callback):
    """Write images, decoded and refined, to `<log_dir>/refined.png` at the end of fit.

    Args:
        num_images: rows of the picture, of the first batch at most.
    """

    def __init__(self, num_images: int = 4) -> None:
        self.num_images = num_images
        self._real: Tensor | None = None

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Agree on a folder.

        Raises:
            InputError: no refiner.
        """
        if not isinstance(pl_module, Refiner):
            raise InputError(f"RefineImages needs a Refiner, got a {type(pl_module).__name__}.")
        self._folder = log_folder(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first images."""
        if self._real is None:
            self._real = batch["images"][: self.num_images]

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the picture and print the command that uses the refiner."""
        if self._real is None:  # resumed where nothing was left to do
            return
        real = self._real.to(pl_module.device)
        with torch.no_grad():
            decoded = pl_module.codec.decode(pl_module.codec.encode(real))
        shown = torch.stack([real, decoded, pl_module.refine(decoded)], dim=1)  # (B, 3, 3, H, W)
        path = self._folder / "refined.png"
        save(table(shown, columns=("original", "decoded", "refined")), path)
        print(f"\nOriginal, decoded and refined images: {path}")
        if checkpoint := saved_checkpoint(trainer):
            noisy = pl_module.noise_range[1] > 0
            sample = f"lit-mbldm sample MODEL -n 16 --refiner {checkpoint} --out grid.png"
            print("Use it:", sample if noisy else f"lit-mbldm codec decoder {checkpoint} OUT")
