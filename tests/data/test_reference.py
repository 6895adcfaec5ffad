"""The sets of images that scores see. Photo i is i bright at the left, 255 - i at the right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.data import CropDataModule, ShardDataModule, encode_shards, write_shards
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.errors import InputError

COUNT = 11


@pytest.fixture
def shards(tmp_path: Path, make_photos) -> Path:
    write_shards(make_photos(COUNT), tmp_path / "in_threes", 16, shard_size=3, workers=1)
    return tmp_path / "in_threes"


def on_rank(data: Any, rank: int = 0, world_size: int = 1) -> Any:
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world_size, lightning_module=None, current_epoch=3
    )
    return data


def read(reference: ReferenceSet) -> Tensor:
    batches = [batch[reference.kind] for batch in reference.batches]
    assert len(batches) == len(reference.batches)  # type: ignore[arg-type]
    return torch.cat(batches)


def numbers(images: Tensor) -> list[int]:
    return [round(float(image[:, :, :4].float().mean())) for image in images]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_training_images_in_order_without_flips(shards, world_size) -> None:
    data = ShardDataModule(str(shards), batch_size=2)
    seen: list[int] = []
    for rank in range(world_size):
        reference = on_rank(data, rank, world_size).training_set()
        assert reference.count == COUNT
        assert reference.start == len(seen)
        seen += numbers(read(reference))
    assert seen == list(range(COUNT))


def test_a_bounded_set_and_one_of_codes(shards: Path, tmp_path: Path, codec: Any) -> None:
    reference = on_rank(ShardDataModule(str(shards), batch_size=2)).training_set(max_images=7)
    assert reference.count == 7
    assert numbers(read(reference)) == [0, 3, 4, 6, 7, 9, 10]  # of every shard its share
    encode_shards(shards, tmp_path / "codes", codec)
    codes = read(on_rank(ShardDataModule(str(tmp_path / "codes"))).training_set())
    assert codes[:, 0, 0, 0].tolist() == list(range(COUNT))


def test_the_reference_is_held_out(shards: Path, tmp_path: Path, codec: Any) -> None:
    with pytest.raises(InputError, match=r"--val 0\.1"):
        on_rank(ShardDataModule(str(shards))).reference()
    write_shards(tmp_path / "photos", tmp_path / "split", 16, val=0.3, workers=1)
    encode_shards(tmp_path / "split", tmp_path / "codes", codec)
    data = on_rank(ShardDataModule(str(tmp_path / "split")))
    held_out, trained = numbers(read(data.reference())), numbers(read(data.training_set()))
    assert held_out
    assert sorted(held_out + trained) == list(range(COUNT))
    codes = on_rank(ShardDataModule(str(tmp_path / "codes"))).reference()
    assert read(codes)[:, 0, 0, 0].tolist() == held_out
    assert (data.reference().name, codes.name) == ("held-out images", "decoded held-out codes")


def test_a_shard_that_is_trained_on_is_no_reference(shards: Path, tmp_path: Path) -> None:
    for val in (shards, shards / "images-000001.tar"):
        data = on_rank(ShardDataModule(str(shards), str(val)))
        with pytest.raises(InputError, match="are trained on"):
            data.reference()


def test_the_fingerprint_follows_contents_and_not_the_place(shards, tmp_path, make_photos) -> None:
    def identity(path: Path, **options: Any) -> Any:
        return on_rank(ShardDataModule(str(path), **options)).training_set().fingerprint

    first = identity(shards)
    assert identity(shards, image_size=8) != first
    shards.rename(tmp_path / "moved")
    assert identity(tmp_path / "moved") == first
    write_shards(make_photos(COUNT + 1, folder="more"), tmp_path / "other", 16, shard_size=3)
    assert identity(tmp_path / "other") != first
    (tmp_path / "moved" / "manifest.json").unlink()
    without = identity(tmp_path / "moved")
    assert without != first
    (tmp_path / "moved" / "images-000000.tar").touch()
    assert identity(tmp_path / "moved") != without


def test_crops_are_the_first_epoch_s_on_any_number_of_ranks(make_photos) -> None:
    def crops(seed: int = 0, **options: Any) -> CropDataModule:
        return CropDataModule(
            str(folder), crop_size=8, batch_size=4, crops_per_epoch=10, seed=seed, **options
        )

    folder = make_photos(2)
    whole = on_rank(crops()).reference()
    assert "training photographs" in whole.name
    images = read(whole)
    assert images.shape == (10, 3, 8, 8)
    halves = [on_rank(crops(), rank, 2).reference() for rank in (0, 1)]
    assert [half.start for half in halves] == [0, 5]
    assert torch.equal(torch.cat([read(half) for half in halves]), images)
    assert torch.equal(read(on_rank(crops(num_workers=2)).reference()), images)
    trained = on_rank(crops(horizontal_flip=False))
    trained.setup()
    trained.trainer.current_epoch = 0
    assert torch.equal(next(iter(trained.train_dataloader()))["images"], images[:4])
    assert torch.equal(read(on_rank(crops()).reference(max_images=3)), images[:3])
    assert on_rank(crops(seed=1)).reference().fingerprint != whole.fingerprint
