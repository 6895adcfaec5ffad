"""A model's samples as numbered pictures: `lightning predict`."""

from pathlib import Path
from typing import Any

import lightning as L

from lit_mbldm.errors import InputError
from lit_mbldm.pictures import save
from lit_mbldm.training.drawing import DrawSamples
from lit_mbldm.training.options import SampleOptions


class WriteSamples(DrawSamples):
    """Writes samples to `out/000000.png`, `000001.png`, …; each process its own.

    Sample i depends on (seed, i) alone, so that any number of processes writes the same files.

    Args:
        num_images: samples to draw, of all processes together.
        batch_size: drawn at once in each process.
        options: how they are drawn.
        out: folder to write, without pictures yet.
    """

    def __init__(
        self,
        num_images: int = 1000,
        batch_size: int = 64,
        options: SampleOptions | None = None,
        out: str = "samples",
    ) -> None:
        super().__init__(num_images, batch_size, options)
        self.out = Path(out).expanduser()

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Check model, options and folder before hours are spent.

        Raises:
            InputError: no diffusion model, an option that it does not take, or pictures in `out`.
        """
        super().setup(trainer, pl_module, stage)
        self.out.mkdir(parents=True, exist_ok=True)
        if any(self.out.glob("*.png")):
            raise InputError(f"{self.out} already holds pictures. Name another folder as out.")

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the images (B, 3, H, W) uint8 of the numbers (B,)."""
        for number, image in zip(batch.tolist(), outputs.cpu(), strict=True):
            save(image, self.out / f"{number:06d}.png")

    def on_predict_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Say where the pictures are."""
        if trainer.is_global_zero:
            print(f"\n{self.num_images} samples: {self.out}")
