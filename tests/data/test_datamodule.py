import io
import tarfile
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from batches import same

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.loading.loader import EpochLoader
from lit_mbldm.data.loading.streams import Share, ShuffledStream
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.reading import code_variants
from lit_mbldm.errors import InputError


def codes(batches) -> list[int]:
    """The index of each sample: the code at the top left, but for the flipped."""
    return [int(min(c[0, 0, 0], c[0, 0, 1])) for batch in batches for c in batch["codes"]]


def shuffled(shards: Path, batch_size: int = 4, **options) -> ShuffledStream:
    variants = partial(code_variants, shape=(1, 2, 2))
    return ShuffledStream(
        open_shards(shards), variants, Share(batch_size, horizontal_flip=True, **options)
    )


def epoch_of(shards: Path, epoch: int = 0, workers: int = 0, **options):
    loader = EpochLoader(shuffled(shards, **options), lambda: epoch, workers)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def numbers(shards: Path, epoch: int = 0, **options) -> list[int]:
    """The samples that a training stream reads."""
    return [int(i) for batch in epoch_of(shards, epoch, **options) for i in batch["index"]]


def fitted(*args, **options) -> ShardDataModule:
    module = ShardDataModule(*args, **options)
    module.setup("fit")
    return module


def test_seed_and_epoch_decide_the_order_and_which_half_is_flipped(code_shards) -> None:
    first = epoch_of(code_shards, epoch=1, seed=5)
    assert same(first, epoch_of(code_shards, epoch=1, seed=5))
    assert not same(first, epoch_of(code_shards, epoch=2, seed=5))
    assert not same(first, epoch_of(code_shards, epoch=1, seed=6))
    assert codes(first) != sorted(codes(first))
    batches = [b for epoch in range(5) for b in epoch_of(code_shards, epoch=epoch)]
    flipped = [bool(c[0, 0, 0] > c[0, 0, 1]) for b in batches for c in b["codes"]]
    assert 0.35 < np.mean(flipped) < 0.65


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once_an_epoch(code_shards, workers) -> None:
    batches = epoch_of(code_shards, workers=workers, batch_size=10)
    assert sorted(int(i) for batch in batches for i in batch["index"]) == list(range(40))
    assert all(abs(a - b) <= 2 for a, b in zip(sorted(codes(batches)), range(40), strict=True))
    one_shard = code_shards / "codes-000000.tar"  # of two workers
    assert sorted(numbers(one_shard, workers=workers, batch_size=2)) == list(range(10))
    # what does not fill a batch is left out, others each epoch
    seen = [set(numbers(one_shard, batch_size=8, epoch=epoch)) for epoch in range(12)]
    assert {len(names) for names in seen} == {8}
    assert len(set.union(*seen)) == 10


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_have_disjoint_shares_and_as_many_batches(code_shards, world_size) -> None:
    shares = [
        numbers(code_shards, batch_size=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    together = [number for share in shares for number in share]
    assert len(set(together)) == len(together)
    assert len({len(share) for share in shares}) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_is_sequential_and_complete(code_shards, workers) -> None:
    module = ShardDataModule(str(code_shards), str(code_shards), batch_size=16, num_workers=workers)
    module.setup("validate")
    batches = list(module.val_dataloader())
    assert len(batches) == len(module.val_dataloader()) == 3
    found = codes(batches)
    assert max(abs(a - b) for a, b in zip(sorted(found), range(40), strict=True)) <= 2
    if workers == 0:
        assert found == sorted(found)
    module.trainer = SimpleNamespace(world_size=41, global_rank=0, current_epoch=0)
    with pytest.raises(InputError, match="41 processes"):
        module.val_dataloader()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_several_sizes_are_an_error(image_shards, make_photos, tmp_path, workers) -> None:
    write_shards(make_photos(10, folder="other"), tmp_path / "large", 24, workers=1)
    both = [str(image_shards), str(tmp_path / "large")]
    module = fitted(both, batch_size=40, num_workers=workers)
    with pytest.raises(InputError, match="image_size") as error:
        list(module.train_dataloader())
    assert "Traceback" not in str(error.value)
    module.image_size = 8
    assert next(iter(module.train_dataloader()))["images"].shape == (40, 3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_skipped_and_every_batch_is_full(image_shards, workers) -> None:
    shard = image_shards / "images-000001.tar"
    data = bytearray(shard.read_bytes())
    data[512:700] = bytes(188)
    shard.write_bytes(data)
    (image_shards / "manifest.json").unlink()
    module = fitted(str(image_shards), batch_size=4, num_workers=workers)
    named = pytest.warns(UserWarning, match=r"images-000001\.tar/00000010: not an image")
    with named, pytest.raises(InputError, match="1 of 40 could not be used"):
        list(module.train_dataloader())
    module.max_skipped = 0.025
    with named:
        assert [len(batch["index"]) for batch in module.train_dataloader()] == [4] * 10


@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_shard_is_counted_once_and_every_batch_is_full(code_shards, manifest) -> None:
    shard = code_shards / "codes-000001.tar"
    shard.write_bytes(shard.read_bytes()[: 9 * 512])
    if not manifest:
        (code_shards / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=r"codes-000001\.tar"):
        batches = epoch_of(code_shards, batch_size=10)
    assert [len(batch["codes"]) for batch in batches] == [10] * (4 if manifest else 3)
    if manifest:
        batches = list(shuffled(code_shards, 10))
        lost = 40 - len({number for batch in batches for number in batch["index"].tolist()})
        assert 0 < lost == sum(count for batch in batches for _, _, count in batch["skipped"])


@pytest.mark.filterwarnings("ignore")
def test_shards_of_which_nothing_or_too_little_can_be_read(image_shards, code_shards) -> None:
    with pytest.raises(InputError, match="Lower batch_size"):
        shuffled(code_shards, batch_size=41)
    for shard in image_shards.glob("*.tar"):
        with tarfile.open(shard, "w") as archive:
            archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO(b""))
    with pytest.raises(InputError, match="No sample"):
        list(fitted(str(image_shards), batch_size=4).train_dataloader())


def test_processes_that_find_other_samples_are_told(code_shards, monkeypatch) -> None:
    monkeypatch.setattr("lit_mbldm.data.loading.datamodule.all_equal", lambda value: False)
    with pytest.raises(InputError, match="do not find the same samples"):
        fitted(str(code_shards))


def test_another_content_starts_the_epoch_again(code_shards, image_shards, codec, tmp_path) -> None:
    loader = fitted(str(code_shards), batch_size=4).train_dataloader()
    next(iter(loader))
    encode_shards(image_shards, tmp_path / "other", codec, flip=False)
    module = fitted(str(tmp_path / "other"), batch_size=4)
    moved: list[int] = []
    module.move_to_batch = moved.append
    with pytest.warns(UserWarning, match="data changed"):
        module.train_dataloader().load_state_dict(loader.state_dict())
    assert moved == [0]


class Probe(lightning.LightningModule):
    """Keeps the batches it gets; trains nothing."""

    def __init__(self, codec) -> None:
        super().__init__()
        self.codec = codec
        self.automatic_optimization = False
        self.seen: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch, batch_idx) -> None:
        self.seen.append(batch)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def configure_optimizers(self) -> None:
        return None


def fit(codec, module) -> dict[str, torch.Tensor]:
    """The first batch that reaches the model."""
    probe = Probe(codec)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", max_steps=1, enable_checkpointing=False, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(probe, module)
    return probe.seen[0]


def test_codes_are_encoded_once_into_the_cache(image_shards, codec, tmp_path) -> None:
    options = {"batch_size": 40, "cache_dir": str(tmp_path / "cache"), "in_memory": True}
    first = ShardDataModule(str(image_shards), str(image_shards), **options)
    batch = fit(codec, first)
    assert set(batch) == {"codes", "index"}
    images = ShardDataModule("-", str(image_shards), batch_size=40)
    images.setup("validate")
    originals = codec.encode(next(iter(images.val_dataloader()))["images"])[batch["index"]]
    flipped = (batch["codes"] != originals).flatten(1).any(1)
    assert torch.equal(batch["codes"][~flipped], originals[~flipped])
    assert torch.equal(batch["codes"][flipped], originals[flipped].flip(-1))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    again = fit(codec, ShardDataModule(str(image_shards), **options))
    assert torch.equal(again["codes"], batch["codes"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == written
    assert first.training_set().kind == "images"


def test_the_model_gets_codes_of_either_kind_of_shards(image_shards, code_shards, codec) -> None:
    options = {"batch_size": 40, "horizontal_flip": False}
    batch = fit(codec, ShardDataModule(str(image_shards), **options))
    stored = fit(codec, ShardDataModule(str(code_shards), **options))
    assert torch.equal(batch["codes"], codec.encode(batch["images"]))
    assert set(stored) == {"codes", "index"}
    found, expected = batch["codes"].flatten(1), stored["codes"].flatten(1)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_codes_of_another_codec_and_sizes_it_cannot_encode_are_refused(
    image_shards, code_shards, codec, other_codec
) -> None:
    with pytest.raises(InputError, match="lit-mbldm encode") as error:
        fit(other_codec, ShardDataModule(str(code_shards), batch_size=4))
    assert codec.fingerprint[:12] in str(error.value)
    assert other_codec.fingerprint[:12] in str(error.value)
    module = ShardDataModule(str(image_shards), image_size=20)
    with pytest.raises(InputError, match="multiples of 8"):
        fit(codec, module)
