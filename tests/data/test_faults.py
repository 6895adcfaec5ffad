"""Damaged shards: what is skipped, with which count, and what stops with which error."""

import io
import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from batches import read_all

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.errors import InputError

BLOCK = 512
SAMPLE = 2 * BLOCK  # header and one block of contents
TAG = 2 * BLOCK


def unchecked(folder: Path) -> str:
    """A URL, whose shards a stream does not compare with their sha256."""
    return f"file://{folder}"


def flip(shard: Path, position: int) -> None:
    """Flip one bit."""
    data = bytearray(shard.read_bytes())
    data[position] ^= 1
    shard.write_bytes(data)


@pytest.fixture
def shard(code_shards: Path) -> Path:
    """The second of four shards, with samples 10 to 19."""
    return code_shards / "codes-000001.tar"


def cut(shard: Path, length: int) -> None:
    shard.write_bytes(shard.read_bytes()[:length])


def compress(shard: Path) -> None:
    with tarfile.open(shard, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.npy"), io.BytesIO())


THIRD, FOURTH = TAG + 3 * SAMPLE, TAG + 4 * SAMPLE
CUTS = {0: 0, 100: 0, TAG: 0, THIRD: 3, THIRD + 10: 3, THIRD + 522: 3, TAG + 10 * SAMPLE: 10}


@pytest.mark.parametrize(
    ("damage", "good"),
    [
        *((partial(cut, length=length), good) for length, good in CUTS.items()),
        *((partial(flip, position=FOURTH + place), 4) for place in (0, 100, 124, 148, 156)),
        (partial(flip, position=BLOCK + 1), 0),  # in the tag
        (compress, 0),
        (lambda shard: shard.write_bytes(np.random.default_rng(0).bytes(20_480)), 0),
    ],
)
def test_damage_loses_the_samples_behind_it(code_shards, shard, damage, good) -> None:
    whole, _ = read_all(unchecked(code_shards))
    damage(shard)
    samples, skips = read_all(unchecked(code_shards))
    assert samples == whole[: 10 + good] + whole[20:]
    assert skips.count == 10 - good
    assert [entry["name"] for entry in skips.entries] == [shard.name] * (good < 10)
    if good < 10:
        assert skips.entries[0]["reason"].startswith(f"ends after {good} samples")
        assert "<_io" not in skips.summary()


@pytest.mark.parametrize(("place", "readable"), [(130, True), (0, False)], ids=["code", "header"])
def test_a_flip_in_contents_changes_their_sample_only(code_shards, shard, place, readable) -> None:
    whole, _ = read_all(unchecked(code_shards))
    flip(shard, TAG + 4 * SAMPLE + BLOCK + place)
    samples, skips = read_all(unchecked(code_shards))
    assert [k for k, (a, b) in enumerate(zip(samples, whole, strict=True)) if a != b] == [14]
    assert skips.count == 0
    if not readable:
        with pytest.warns(UserWarning, match=r"codes-000001\.tar/\d+14: no readable \.npy"):
            assert len(train(code_shards)) == 40


def test_shards_of_another_codec_end_it(
    code_shards, image_shards, other_codec, shard, tmp_path
) -> None:
    encode_shards(image_shards, tmp_path / "other", other_codec)
    shutil.copy(tmp_path / "other" / shard.name, shard)
    assert open_shards(code_shards).count == 40
    with pytest.raises(InputError, match=other_codec.fingerprint[:12]) as error:
        read_all(unchecked(code_shards))
    assert str(shard) in str(error.value)
    for workers in (0, 2):
        with pytest.raises(InputError, match=r"Encode the images again"):
            train(code_shards, workers)
    shutil.copy(image_shards / "images-000001.tar", shard)
    with pytest.raises(InputError, match="holds images"):
        read_all(unchecked(code_shards))


@pytest.mark.parametrize("contents", [b"", b"no tar at all" * 100, bytes(10240)])
def test_without_a_manifest_unreadable_shards_stop_the_run(code_shards, shard, contents) -> None:
    (code_shards / "manifest.json").unlink()
    shard.write_bytes(contents)
    with pytest.raises(InputError, match=r"1 of 4 could not be used.*\n.*codes-000001\.tar: "):
        open_shards(code_shards)


def train(folder: Path, workers: int = 0) -> list[int]:
    """The numbers of the samples of an epoch."""
    module = ShardDataModule(unchecked(folder), batch_size=10, num_workers=workers, max_skipped=1.0)
    module.setup("fit")
    return [int(index) for batch in module.train_dataloader() for index in batch["index"]]
