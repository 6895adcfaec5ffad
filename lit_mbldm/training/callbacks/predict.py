"""A model's samples as numbered pictures: `lightning predict`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import lightning as L

from lit_mbldm.errors import InputError
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.pictures import save, text_of
from lit_mbldm.training.callbacks.samples import DrawSamples, SampleNumbers
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import RefinerModule


class WriteSamples(DrawSamples):
    """Writes samples to `out/000000.png`, `000001.png`, …; each process its own.

    Sample i depends on (seed, i) alone, so that any number of processes writes the same files.
    Those that a killed run left are kept; each carries the fingerprint of what made it.

    Args:
        num_images: samples to draw, of all processes together.
        batch_size: drawn at once in each process.
        options: how they are drawn.
        out: folder to write, without pictures of other settings.
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
        self._fingerprint = ""

    def numbers(self, training: L.LightningDataModule | None = None) -> SampleNumbers:
        """The numbers whose pictures are still to be drawn, to give to Trainer.predict."""
        return SampleNumbers(
            self.num_images, self.batch_size, training, lambda number: self._path(number).exists()
        )

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Check model and options before hours are spent, and make the folder."""
        super().setup(trainer, pl_module, stage)
        self.out.mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            for leftover in self.out.glob(".*.png.*.tmp"):
                leftover.unlink(missing_ok=True)

    def on_predict_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep the pictures that are there.

        Raises InputError for pictures in `out` that other weights or options made.
        """
        settled = pl_module.settle(pl_module.test_options)
        refiner = pl_module.refiner if settled.refiner is None else settled.refiner
        of_refiner = features_fingerprint(refiner) if isinstance(refiner, RefinerModule) else None
        options = {**settled.given(), "seed": settled.seed, "refiner": of_refiner}
        more = {name: getattr(settled, name) for name in ("label", "canvas", "size")}
        options |= {name: value for name, value in more.items() if value is not None}
        if isinstance(settled.guide, CodecModule):
            options["guide"] = features_fingerprint(settled.guide)
        text = features_fingerprint(pl_module) + json.dumps(options, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        pictures = sorted(self.out.glob("*.png"))
        if any(text_of(path) != self._fingerprint for path in pictures):
            raise InputError(
                f"{self.out} already holds pictures that this model and these options did not make."
                " Name another folder with --samples.out."
            )
        if pictures and trainer.is_global_zero:
            print(f"{len(pictures)} samples are in {self.out} already and are kept.")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *numbers: int
    ) -> None:
        """Write the images (B, 3, H, W) uint8 of the numbers (B,)."""
        for number, image in zip(batch.tolist(), outputs.cpu(), strict=True):
            save(image, self._path(number), self._fingerprint)

    def on_predict_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Say where the pictures are."""
        if trainer.is_global_zero:
            print(f"\n{self.num_images} samples: {self.out}")

    def _path(self, number: int) -> Path:
        return self.out / f"{number:06d}.png"
