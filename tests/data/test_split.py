from collections.abc import Callable
from pathlib import Path

import pytest

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.shard_folder import ShardFolder
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.errors import InputError

MakePhotos = Callable[..., Path]
SIZE = 16


def names(folder: Path, fraction: float) -> list[set[str]]:
    return [{image.name for image in part} for part in open_source(folder).split(fraction)]


def test_every_image_is_in_one_part_and_stays_there(make_photos: MakePhotos) -> None:
    photos = make_photos(100)
    train, val = names(photos, 0.2)
    assert not train & val
    assert len(train | val) == 100
    assert 10 <= len(val) <= 30
    for index in range(0, 100, 2):
        (photos / f"{index:03d}.png").unlink()
    fewer = {image.name for image in open_source(photos)}
    assert names(photos, 0.2) == [train & fewer, val & fewer]
    assert len(names(photos, 1e-9)[1]) == 1
    with pytest.raises(InputError, match="All 50 images"):
        open_source(photos).split(1.0)


def test_the_parts_stay_apart_through_a_kill_between_them_encoding_and_training(
    make_photos, tmp_path, codec, contents
) -> None:
    photos, out, codes = make_photos(40), tmp_path / "images", tmp_path / "codes"
    manifest = write_shards(photos, out, SIZE, val=0.2, shard_size=10, workers=1)
    finish, half = ShardFolder.finish, tmp_path / "half"

    def interrupted(folder: ShardFolder, *arguments) -> Manifest:
        if folder.folder == half:
            raise KeyboardInterrupt
        return finish(folder, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardFolder, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_shards(photos, half, SIZE, val=0.2, shard_size=10, workers=1)
    with pytest.raises(InputError, match="still being written"):
        ShardDataModule(str(half)).setup("fit")
    write_shards(photos, half, SIZE, val=0.2, shard_size=10, workers=1)
    assert contents(half) == contents(out)

    encode_shards(out, codes, codec)
    for folder in (out, codes):
        data = ShardDataModule(str(folder), batch_size=2)
        data.setup("fit")
        counts = data._train_shards.count, data._val_shards.count
        assert counts == (manifest.count, 40 - manifest.count)
        assert len(data.val_dataloader()) == -(-counts[1] // 2)
    assert 0 < manifest.count < 40
    assert (Manifest.read(codes).variants, Manifest.read(codes / "val").variants) == (2, 1)
    assert len(open_source(out)) == manifest.count


def test_one_bad_image_counts_in_all_images_wherever_it_is(make_photos, tmp_path) -> None:
    photos = make_photos(150)
    bad = min(names(photos, 0.05)[1])
    (photos / bad).write_bytes(b"no image")
    write_shards(photos, tmp_path / "out", SIZE, val=0.05)
    assert [s["name"] for s in Manifest.read(tmp_path / "out" / "val").skipped] == [bad]
