import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mbldm.data.manifest import Manifest
from lit_mbldm.data.shards import write_shards
from lit_mbldm.data.sources import open_source
from lit_mbldm.errors import InputError

SIZE = 16
MakePhotos = Callable[..., Path]


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def test_shards_hold_the_images_in_order(make_photos: MakePhotos, tmp_path: Path) -> None:
    manifest = write_shards(make_photos(25), tmp_path / "out", SIZE, shard_size=10, workers=1)
    assert [entry.count for entry in manifest.shards] == [10, 10, 5]
    names = [name for entry in manifest.shards for name in members(tmp_path / "out" / entry.name)]
    assert names == [f"{index:08d}.jpg" for index in range(25)]
    jpeg = members(tmp_path / "out" / "images-000002.tar")["00000023.jpg"]
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert pixels.shape == (SIZE, SIZE, 3)
    assert abs(int(pixels[4, 2, 0]) - 23) <= 2


def test_manifest_file_tells_everything(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(200, bad=1)
    (photos / "notes.txt").write_text("x")
    written = write_shards(photos, tmp_path / "out", SIZE, workers=1)
    fields = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert fields["format"] == 1
    assert (fields["kind"], fields["size"], fields["count"]) == ("images", SIZE, 199)
    assert fields["source"] == str(photos)
    assert [entry["name"] for entry in fields["skipped"]] == ["000.png"]
    assert Manifest.read(tmp_path / "out") == written


@pytest.mark.parametrize("workers", [1, 2])
def test_reruns_are_byte_identical(make_photos: MakePhotos, tmp_path: Path, workers: int) -> None:
    photos = make_photos(12)
    first = write_shards(photos, tmp_path / "a", SIZE, shard_size=5, workers=1)
    second = write_shards(photos, tmp_path / "b", SIZE, shard_size=5, workers=workers)
    assert first == second


def test_verification_names_the_changed_shard(image_shards: Path) -> None:
    manifest = Manifest.read(image_shards)
    manifest.verify(image_shards)
    shard = image_shards / "images-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"images-000001\.tar"):
        manifest.verify(image_shards)


def test_one_bad_of_200_is_skipped_and_named(
    make_photos: MakePhotos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_shards(make_photos(200, bad=1), tmp_path / "out", SIZE, workers=1)
    assert manifest.count == 199
    assert "000.png" in capsys.readouterr().err


def test_one_bad_of_10_fails_at_the_end(make_photos: MakePhotos, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 10 .*\n.*000\.png") as error:
        write_shards(make_photos(10, bad=1), tmp_path / "out", SIZE, workers=1)
    assert str(tmp_path / "out") in str(error.value)
    manifest = Manifest.read(tmp_path / "out")
    manifest.verify(tmp_path / "out")
    assert manifest.count == 9


def test_only_bad_images_fail(make_photos: MakePhotos, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 of 3"):
        write_shards(make_photos(3, bad=3), tmp_path / "out", SIZE, workers=1, max_skipped=1)


def test_a_1x1_image_is_skipped(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(9)
    Image.new("RGB", (1, 1)).save(photos / "tiny.png")
    manifest = write_shards(photos, tmp_path / "out", SIZE, workers=1, max_skipped=0.1)
    assert [entry["name"] for entry in manifest.skipped] == ["tiny.png"]
    assert "too small" in manifest.skipped[0]["reason"]


def test_existing_shards_are_not_overwritten(image_shards: Path, make_photos: MakePhotos) -> None:
    with pytest.raises(InputError, match="already holds shards"):
        write_shards(make_photos(2, folder="more"), image_shards, SIZE, workers=1)


def test_an_interrupted_run_leaves_whole_shards_only(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def interrupted(data: bytes, size: int, quality: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return b"jpeg"

    monkeypatch.setattr("lit_mbldm.data.shards.to_jpeg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(make_photos(12), tmp_path / "out", SIZE, shard_size=5, workers=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images-000000.tar"]


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x"}], ids=["empty", "no images"])
def test_folders_without_images_are_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    with pytest.raises(InputError, match="found none"):
        write_shards(source, tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_missing_and_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.rar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.rar"):
        open_source(tmp_path / "a.rar")
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.zip"):
        open_source(tmp_path / "a.zip")


def test_folder_tar_and_zip_give_the_same_images(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(4)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(photos, "photos")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for path in sorted(photos.iterdir()):
            zipped.write(path, f"../../{path.name}")
        zipped.writestr("readme.txt", "x")
    expected = [raw.read() for raw in open_source(photos)]
    assert sorted(raw.read() for raw in open_source(tmp_path / "a.tar")) == sorted(expected)
    assert [raw.read() for raw in open_source(tmp_path / "a.zip")] == expected
    assert open_source(tmp_path / "a.zip").ignored == 1


@pytest.mark.parametrize("cut", [10_240, 10_500, 10_780], ids=["between", "header", "data"])
def test_a_truncated_tar_loses_only_its_end(
    make_photos: MakePhotos, tmp_path: Path, cut: int
) -> None:
    photos = make_photos(20)
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    data = (tars / "a.tar").read_bytes()
    (tars / "a.tar").write_bytes(data[:cut])
    manifest = write_shards(tars, tmp_path / "out", SIZE, workers=1, max_skipped=0.2)
    assert manifest.count == 10
    assert any("a.tar" in entry["name"] for entry in manifest.skipped)


def test_a_manifest_cannot_name_files_elsewhere(image_shards: Path) -> None:
    path = image_shards / "manifest.json"
    path.write_text(path.read_text().replace("images-000000.tar", "../images-000000.tar"))
    with pytest.raises(InputError, match="outside"):
        Manifest.read(image_shards)
