"""FID, KID, precision, recall and copies of a model's samples: `lightning test`."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_mbldm.data import ShardDataModule
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.data.shards.patterns import validation_part
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.fidelity import NEIGHBOURS, FeatureSet, compare, fid
from lit_mbldm.metrics.inception import InceptionFeatures, describe_features
from lit_mbldm.parallel.ranks import from_first, gather_rows
from lit_mbldm.pictures import grid, save
from lit_mbldm.storage.atomic import write_whole
from lit_mbldm.training.callbacks.bits import bits_a_patch
from lit_mbldm.training.callbacks.nearest import CHECKED, check_copies, shrink
from lit_mbldm.training.callbacks.reference_features import default_cache, measure_reference
from lit_mbldm.training.callbacks.samples import DrawSamples
from lit_mbldm.training.options import SampleOptions

_SHOWN = 64
_PAIRS = 32


@dataclass(frozen=True)
class _Data:
    """What scores compare with, and what they search for copies where a training set is known."""

    reference: ReferenceSet
    training: ReferenceSet | None = None
    held_out: ReferenceSet | None = None


class ScoreSamples(DrawSamples):
    """Scores samples against held-out images, and the codec's reconstructions beside them.

    Logs test/fid, test/kid, test/kid_std, test/precision, test/recall, test/rfid and test/copies,
    prints them, and writes `scores.json`, `test_samples.png` and `nearest.png` to the log folder,
    by TensorBoard's logger that of the run that is scored. Sample i depends on (seed, i) alone, so
    that any number of processes draws the same images. The reference is the data module's `val`;
    of code shards it is the decoded codes, and then there is no rFID; `reference` mends that.

    Copies are the samples that lie nearer to a training image than 99 % of the held-out images do,
    measured on up to 2,000 of each; `nearest.png` shows the 32 most suspicious.

    Of a model of codes it also tells, on as many held-out images and without labels, the bits a
    patch that it needs at most, the variational bound: test/bits and test/bits_std.

    Args:
        num_images: samples to draw, of all processes together.
        batch_size: drawn at once in each process.
        options: how they are drawn.
        features: any module of `num_features` F that maps uint8 (N, 3, H, W) to (N, F); None is
            `lit_mbldm.metrics.inception.InceptionFeatures` with the weights of the extra `eval`.
        max_reference: take at most this many held-out images, evenly from all shards.
        cache: folder of reference features; None is ~/.cache/lit_mbldm/reference.
        reference: shards of the held-out images, for a config that trains on code shards, or their
            validation part where they have one; None takes the data's own.
        max_training: search at most this many training images for copies, evenly from all shards.
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
        max_training: int | None = None,
    ) -> None:
        super().__init__(num_images, batch_size, options)
        if num_images <= NEIGHBOURS:
            raise InputError(f"Scores need at least {NEIGHBOURS + 1} images, got {num_images}.")
        self.features = (features or InceptionFeatures()).eval()
        self.max_reference = max_reference
        self.cache = Path(cache).expanduser() if cache else default_cache()
        self.reference = reference
        self.max_training = max_training

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the held-out images, or find their features in the cache."""
        self._start = time.perf_counter()
        # numbers, features, first images, and small ones that are searched for copies
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.features.to(pl_module.device)
        self._data = self._find_data(trainer, pl_module)
        held_out = self._data.held_out
        self._bits = bits_a_patch(pl_module, held_out) if held_out else {}
        self._reference = measure_reference(
            self._data.reference, pl_module.codec, self.features, self.cache, pl_module.device
        )

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *numbers: int
    ) -> None:
        """Keep the features of the images (B, 3, H, W) of numbers (B,)."""
        features = self.features(outputs).float().cpu()
        shown, checked = outputs[batch < _SHOWN].cpu(), shrink(outputs[batch < CHECKED]).cpu()
        self._batches.append((batch.cpu(), features, shown, checked))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare on the first process, and tell everywhere."""
        rows = (torch.cat(column) for column in zip(*self._batches, strict=True))
        numbers, features, images, small = (gather_rows(own, pl_module.device) for own in rows)
        data, copies, model = self._data, None, pl_module
        if data.training is not None:
            first = small[numbers[numbers < CHECKED].argsort()]
            copies = check_copies(first, data.training, data.held_out, model.codec, model.device)
        scores: dict[str, float | None] = {}
        if self._reference is not None:
            real, reconstructed = self._reference.real, self._reference.reconstructed
            scores = asdict(compare(real, FeatureSet.of(features[numbers.argsort()])))
            scores["rfid"] = fid(real, reconstructed) if reconstructed is not None else None
            scores |= copies.shares() if copies else {"copies": None}
        scores |= self._bits
        for name, value in from_first(scores, pl_module.device).items():
            if value is not None:
                pl_module.log(f"test/{name}", value, sync_dist=True)
        if self._reference is not None:
            self._report(trainer, pl_module, scores, self._reference.real.count)
            images = images[numbers[numbers < _SHOWN].argsort()]
            save(grid(images), self.folder / "test_samples.png")
            if copies:
                save(copies.picture(_PAIRS), self.folder / "nearest.png")

    def _find_data(self, trainer: L.Trainer, model: Any) -> _Data:
        data: Any = getattr(getattr(trainer, "datamodule", None), "training", None)
        held_out = data
        if self.reference is not None:
            shards = validation_part(self.reference) or self.reference
            train = getattr(data, "train", [])
            held_out = ShardDataModule(train, shards, image_size=model.image_size)
        if not hasattr(held_out, "reference"):
            raise InputError(
                "Scores compare with a data module that has a `reference` method, such as"
                " ShardDataModule: trainer.test(model, scores.numbers(data_module))."
            )
        held_out.trainer = trainer
        reference = held_out.reference(self.max_reference)
        if not hasattr(data, "training_set"):
            return _Data(reference)
        data.trainer = trainer
        training = data.training_set(self.max_training)
        return _Data(reference, training, held_out.reference(CHECKED))

    def _report(
        self, trainer: L.Trainer, model: Any, scores: dict[str, float | None], count: int
    ) -> None:
        named = {}
        for name in ("refiner", "label", "guide", "size"):
            value = getattr(self.options, name)
            named[name] = type(value).__name__ if isinstance(value, nn.Module) else value
        drawn = model.settle(model.test_options).given()
        record = {
            **scores,
            "num_images": self.num_images,
            "options": {**drawn, "seed": self.options.seed, **named},
            "reference": self._data.reference.name,
            "reference_images": count,
            "features": describe_features(self.features),
            "checkpoint": trainer.ckpt_path and str(trainer.ckpt_path),
        }
        path = self.folder / "scores.json"
        write_whole(path, json.dumps(record, indent=1) + "\n")
        minutes = (time.perf_counter() - self._start) / 60
        print(_table(record), f"\nScores, after {minutes:.1f} minutes: {path}", sep="\n")


def _table(record: dict[str, Any]) -> str:
    """A Markdown table of the scores, with what they were measured on."""
    options = " ".join(f"{k} {v}" for k, v in record["options"].items() if v is not None)
    rfid = "-" if record["rfid"] is None else f"{record['rfid']:.3f}"
    copies = "-"
    if record["copies"] is not None:
        copies = f"{record['copies']:.1%} (held-out: {record['held_out_copies']:.1%})"
    compared = f"{record['reference_images']} {record['reference']}"
    lines = [
        f"\n{record['num_images']} samples ({options}) against {compared}",
        f"Features: {record['features']}\n",
        "| FID | KID × 10³ | precision | recall | codec's rFID | copies |",
        "|---|---|---|---|---|---|",
        f"| {record['fid']:.3f} | {1000 * record['kid']:.1f} ± {1000 * record['kid_std']:.1f}"
        f" | {record['precision']:.3f} | {record['recall']:.3f} | {rfid} | {copies} |",
    ]
    if "bits" in record:
        lines.append(
            f"\nBits a patch, variational bound: {record['bits']:.2f} ± {record['bits_std']:.2f}"
        )
    if record["rfid"] is None:
        lines.append(
            "Code shards keep no originals: FID is to the decoded codes, and there is no rFID. Name"
            " image shards of held-out images with --score.reference."
        )
    return "\n".join(lines)
