"""FID, KID, precision and recall of a model's samples: `lightning test`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_mbldm.data import ShardDataModule
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.fidelity import NEIGHBOURS, FeatureSet, compare, fid
from lit_mbldm.metrics.inception import InceptionFeatures, describe_features
from lit_mbldm.parallel.ranks import from_first, gather_rows
from lit_mbldm.pictures import grid, save
from lit_mbldm.storage.atomic import replacing
from lit_mbldm.training.callbacks.reference_features import (
    default_cache,
    measure_reference,
)
from lit_mbldm.training.callbacks.samples import DrawSamples
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import Refiner

_SHOWN = 64


class ScoreSamples(DrawSamples):
    """Scores samples against the training set, and the codec's reconstructions beside them.

    Logs test/fid, test/kid, test/precision, test/recall and test/rfid, prints them, and writes
    `scores.json` and `test_samples.png` to the log folder, by TensorBoard's logger that of the run
    that is scored. Sample i depends on (seed, i) alone, so that any number of processes draws the
    same images. The reference is the training set in order and without flips; of code shards it is
    the decoded codes, and then there is no rFID; `reference` mends that.

    Args:
        num_images: samples to draw, of all processes together.
        batch_size: drawn at once in each process.
        options: how they are drawn.
        features: any module of `num_features` F that maps uint8 (N, 3, H, W) to (N, F); None is
            `lit_mbldm.metrics.inception.InceptionFeatures` with the weights of the extra `eval`.
        max_reference: take at most this many training images, evenly from all shards.
        cache: folder of reference features; None is ~/.cache/lit_mbldm/reference.
        reference: image shards of the training set, for a config that trains on code shards; None
            takes the data's own.
    """

    def __init__(
        self,
        num_images: int = 5000,
        batch_size: int = 64,
        options: SampleOptions | None = None,
        features: nn.Module | None = None,
        max_reference: int | None = None,
        cache: str | None = None,
        reference: str | None = None,
    ) -> None:
        super().__init__(num_images, batch_size, options)
        if num_images <= NEIGHBOURS:
            raise InputError(f"Scores need at least {NEIGHBOURS + 1} images, got {num_images}.")
        self.features = (features or InceptionFeatures()).eval()
        self.max_reference = max_reference
        self.cache = Path(cache).expanduser() if cache else default_cache()
        self.reference = reference

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the training set, or find it in the cache."""
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []  # numbers, features, first images
        self.features.to(pl_module.device)
        self._data = self._find_reference(trainer, pl_module)
        self._reference = measure_reference(
            self._data, pl_module.codec, self.features, self.cache, pl_module.device
        )

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *numbers: int
    ) -> None:
        """Keep the features of the images (B, 3, H, W) of numbers (B,)."""
        features = self.features(outputs).float().cpu()
        self._batches.append((batch.cpu(), features, outputs[batch < _SHOWN].cpu()))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare on the first process, and tell everywhere."""
        rows = (torch.cat(column) for column in zip(*self._batches, strict=True))
        numbers, features, images = (gather_rows(own, pl_module.device) for own in rows)
        scores: dict[str, float | None] = {}
        if self._reference is not None:
            real, reconstructed = self._reference.real, self._reference.reconstructed
            scores = asdict(compare(real, FeatureSet.of(features[numbers.argsort()])))
            scores["rfid"] = fid(real, reconstructed) if reconstructed is not None else None
        for name, value in from_first(scores, pl_module.device).items():
            if value is not None:
                pl_module.log(f"test/{name}", value, sync_dist=True)
        if self._reference is not None:
            self._report(trainer, pl_module, scores, self._reference.real.count)
            images = images[numbers[numbers < _SHOWN].argsort()]
            save(grid(images), self.folder / "test_samples.png")

    def _find_reference(self, trainer: L.Trainer, model: Any) -> ReferenceSet:
        training: Any = getattr(getattr(trainer, "datamodule", None), "training", None)
        if self.reference is not None:
            training = ShardDataModule(self.reference, image_size=model.image_size)
        if not hasattr(training, "reference"):
            raise InputError(
                "Scores compare with a data module that has a `reference` method, such as"
                " ShardDataModule: trainer.test(model, scores.numbers(data_module))."
            )
        training.trainer = trainer
        return training.reference(self.max_reference)

    def _report(
        self, trainer: L.Trainer, model: Any, scores: dict[str, float | None], count: int
    ) -> None:
        refiner = self.options.refiner
        name = type(refiner).__name__ if isinstance(refiner, Refiner) else refiner
        drawn = model.settle(model.test_options).given()
        kinds = {"images": "training images", "codes": "decoded training codes"}
        record = {
            **scores,
            "num_images": self.num_images,
            "options": {**drawn, "seed": self.options.seed, "refiner": name},
            "reference": kinds[self._data.kind],
            "reference_images": count,
            "features": describe_features(self.features),
            "checkpoint": trainer.ckpt_path and str(trainer.ckpt_path),
        }
        path = self.folder / "scores.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
        print(_table(record), f"\nScores: {path}", sep="\n")


def _table(record: dict[str, Any]) -> str:
    """A Markdown table of the scores, with what they were measured on."""
    options = " ".join(f"{k} {v}" for k, v in record["options"].items() if v is not None)
    rfid = "-" if record["rfid"] is None else f"{record['rfid']:.3f}"
    compared = f"{record['reference_images']} {record['reference']}"
    lines = [
        f"\n{record['num_images']} samples ({options}) against {compared}",
        f"Features: {record['features']}\n",
        "| FID | KID × 10³ | precision | recall | codec's rFID |",
        "|---|---|---|---|---|",
        f"| {record['fid']:.3f} | {1000 * record['kid']:.3f} | {record['precision']:.3f}"
        f" | {record['recall']:.3f} | {rfid} |",
    ]
    if record["rfid"] is None:
        lines.append(
            "Code shards keep no originals: FID is to the decoded codes, and there is no rFID. Name"
            " image shards of the training set with --score.reference."
        )
    return "\n".join(lines)
