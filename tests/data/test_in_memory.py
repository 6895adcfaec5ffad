import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.loading.in_memory import MemoryStream, StoredCodes, load_codes
from lit_mbldm.data.loading.streams import Share
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.reading import code_variants
from lit_mbldm.errors import InputError


def read(folder: Path, max_skipped: float = 0.01, flip: bool = True) -> StoredCodes:
    return load_codes(
        open_shards(folder), partial(code_variants, shape=(1, 2, 2)), flip, max_skipped
    )


@pytest.fixture
def stored(code_shards) -> StoredCodes:
    return read(code_shards)


def stream(stored: StoredCodes, *share: int, epoch: int = 0, seed: int = 0) -> list[Any]:
    found = MemoryStream(stored, "codes", Share(*share, seed=seed))
    found.epoch = epoch
    batches = list(found)
    assert len(batches) == len(found)
    return batches


def numbers(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch["index"].tolist()]


def test_the_codes_are_those_of_the_shards(stored, code_shards) -> None:
    module = ShardDataModule("-", str(code_shards), batch_size=40)
    module.setup("validate")
    (batch,) = module.val_dataloader()
    assert torch.equal(stored.codes[:, 0], batch["codes"])
    assert torch.equal(stored.codes[:, 0].flip(-1), stored.codes[:, 1])
    assert torch.equal(stored.index, batch["index"])
    for batch in stream(stored, 8):
        originals = stored.codes[batch["index"], 0]
        flipped = (batch["codes"] != originals).flatten(1).any(1)
        assert torch.equal(batch["codes"][~flipped], originals[~flipped])
        assert torch.equal(batch["codes"][flipped], originals[flipped].flip(-1))


def test_seed_and_epoch_decide_the_order_which_is_the_same_on_any_number_of_ranks(stored) -> None:
    first = numbers(stream(stored, 8, epoch=1))
    assert sorted(first) == list(range(40)) != first
    assert first == numbers(stream(stored, 8, epoch=1))
    assert first != numbers(stream(stored, 8, epoch=2))
    assert first != numbers(stream(stored, 8, epoch=1, seed=1))
    ranks = [stream(stored, 4, rank, 3) for rank in range(3)]
    for step, batch in enumerate(stream(stored, 12)):
        for key in ("index", "codes"):
            assert torch.equal(torch.cat([rank[step][key] for rank in ranks]), batch[key])


def test_the_data_module_uses_it(code_shards, image_shards) -> None:
    module = ShardDataModule(str(code_shards), batch_size=10, num_workers=2, in_memory=True)
    module.setup("fit")
    loader = module.train_dataloader()
    assert sorted(numbers(loader)) == list(range(40))
    assert loader.num_workers == 0
    assert read(code_shards, flip=False).codes.shape[:2] == (40, 1)
    with pytest.raises(InputError, match="cache_dir"):
        ShardDataModule(str(image_shards), in_memory=True).setup("fit")


def test_codes_that_do_not_fit_in_memory_are_refused(code_shards, monkeypatch) -> None:
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if "PAGES" in name else min(real(name), 9))
    with pytest.raises(InputError, match="in_memory: false"):
        read(code_shards)


def test_unreadable_codes_are_left_out_and_too_many_are_an_error(code_shards, capsys) -> None:
    shard = code_shards / "codes-000001.tar"
    shard.write_bytes(shard.read_bytes()[: 9 * 512])
    (code_shards / "manifest.json").unlink()
    up_to_there = pytest.warns(UserWarning, match="its samples up to there are used")
    with up_to_there, pytest.raises(InputError, match=r"codes-000001\.tar"):
        read(code_shards)
    with up_to_there:
        kept = read(code_shards, 0.5)
    assert "Skipped 1 samples of" in capsys.readouterr().err
    assert 30 < len(kept.codes) == len(kept.index) < 40
    assert kept.index[-1] == 33
