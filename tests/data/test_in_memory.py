import os
import tarfile
from pathlib import Path

import pytest
import torch

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.loading.in_memory import MemoryStream, StoredCodes
from lit_mbldm.data.shards.locate import ShardSet, open_shards
from lit_mbldm.data.shards.members import CodeReader
from lit_mbldm.errors import InputError


def read(shards: ShardSet, max_skipped: float, flip: bool = True) -> StoredCodes:
    return StoredCodes(shards, CodeReader(shards.tag.shape, flip), max_skipped)


@pytest.fixture
def stored(code_shards) -> StoredCodes:
    return read(open_shards(code_shards), 0.01)


def numbers(stream: MemoryStream, epoch: int = 0) -> list[int]:
    stream.epoch = epoch
    batches = list(stream)
    assert len(batches) == len(stream)
    return [number for batch in batches for number in batch["index"].tolist()]


def test_the_codes_are_those_of_the_shards(stored, code_shards) -> None:
    module = ShardDataModule("-", str(code_shards), batch_size=40)
    module.setup("validate")
    (batch,) = module.val_dataloader()
    assert torch.equal(stored.codes[:, 0], batch["codes"])
    assert torch.equal(stored.codes[:, 0].flip(-1), stored.codes[:, 1])
    assert torch.equal(stored.index, batch["index"])
    for batch in MemoryStream(stored, 8):
        originals = stored.codes[batch["index"], 0]
        flipped = (batch["codes"] != originals).flatten(1).any(1)
        assert torch.equal(batch["codes"][~flipped], originals[~flipped])
        assert torch.equal(batch["codes"][flipped], originals[flipped].flip(-1))


def test_seed_and_epoch_decide_the_order_and_each_sample_comes_once(stored) -> None:
    stream = MemoryStream(stored, 8)
    first = numbers(stream, 1)
    assert sorted(first) == list(range(40)) != first
    assert first == numbers(MemoryStream(stored, 8), 1)
    assert first != numbers(stream, 2)
    assert first != numbers(MemoryStream(stored, 8, seed=1), 1)


def test_the_order_is_the_same_on_any_number_of_ranks(stored) -> None:
    alone = list(MemoryStream(stored, 12))
    ranks = [list(MemoryStream(stored, 4, rank, 3)) for rank in range(3)]
    for step, batch in enumerate(alone):
        for key in ("index", "codes"):
            assert torch.equal(torch.cat([rank[step][key] for rank in ranks]), batch[key])


def test_the_data_module_uses_it(code_shards, image_shards) -> None:
    module = ShardDataModule(str(code_shards), batch_size=10, num_workers=2, in_memory=True)
    module.setup("fit")
    assert sorted(numbers(module.train_dataloader().stream)) == list(range(40))
    assert module.train_dataloader().num_workers == 0
    without = ShardDataModule(str(code_shards), in_memory=True, horizontal_flip=False)
    without.batch_size = 40
    without.setup("fit")
    assert without.train_dataloader().stream.stored.codes.shape[:2] == (40, 1)
    with pytest.raises(InputError, match="cache_dir"):
        ShardDataModule(str(image_shards), in_memory=True).setup("fit")


def test_codes_that_do_not_fit_in_memory_are_refused(code_shards, monkeypatch) -> None:
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if "PAGES" in name else min(real(name), 9))
    with pytest.raises(InputError, match="in_memory: false"):
        read(open_shards(code_shards), 0.01)


def test_changed_codes_that_can_be_read_are_an_error(code_shards: Path) -> None:
    shard = code_shards / "codes-000001.tar"
    with tarfile.open(shard) as archive:
        end = archive.getmembers()[3].offset_data + archive.getmembers()[3].size
    data = bytearray(shard.read_bytes())
    data[end - 1] ^= 1
    shard.write_bytes(data)
    shards = open_shards(code_shards)
    with pytest.raises(InputError, match=r"10 of 40(.|\n)*000001\.tar: differs.*sha256.*copy"):
        read(shards, 0.2, flip=False)
    with pytest.warns(UserWarning, match="Skipped 10"):
        assert not set(read(shards, 0.25, flip=False).index.tolist()) & set(range(10, 20))
    (code_shards / "manifest.json").unlink()
    assert len(read(open_shards(code_shards), 0.01, flip=False).codes) == 40


def test_unreadable_codes_are_left_out_and_too_many_are_an_error(code_shards: Path) -> None:
    shard = code_shards / "codes-000001.tar"
    shard.write_bytes(shard.read_bytes()[: 9 * 512])
    (code_shards / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="its samples up to there are used"):
        shards = open_shards(code_shards)
    with pytest.raises(InputError, match=r"codes-000001\.tar"):
        read(shards, 0.01, flip=False)
    with pytest.warns(UserWarning, match="Skipped 1 of"):
        kept = read(shards, 0.5, flip=False)
    assert 30 < len(kept.codes) == len(kept.index) < 40
    assert kept.index[-1] == 33
