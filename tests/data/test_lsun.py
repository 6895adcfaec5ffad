"""LSUN's layout with real photographs: half of the values JPEG, half WebP, short side 64."""

import hashlib
import io
import random
import shutil
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.errors import InputError

COUNT, SIDE, SIZE = 300, 64, 96
NAME = "church_outdoor_train_lmdb"
SHIPPED = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def write_lmdb(folder: Path, items: dict[bytes, bytes]) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 28) as env, env.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    return folder


def write_data(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(data)
    return folder


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def items() -> dict[bytes, bytes]:
    """Small parts of the shipped photographs."""
    rng = random.Random(0)
    shipped = [Image.open(path).convert("RGB") for path in sorted(SHIPPED.glob("*.jpg"))]
    found = {}
    for number in range(COUNT):
        photo = rng.choice(shipped)
        left, top = rng.randrange(photo.width - 200), rng.randrange(photo.height - 200)
        part = photo.crop((left, top, left + 200, top + 160)).resize((SIDE + 16, SIDE))
        stream = io.BytesIO()
        part.save(stream, ("JPEG", "WEBP")[number % 2], quality=90)
        found[rng.randbytes(20).hex().encode()] = stream.getvalue()
    return found


@pytest.fixture(scope="module")
def lsun(items: dict[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lmdb(tmp_path_factory.mktemp("lsun") / NAME, items)


@pytest.fixture(scope="module")
def data(lsun: Path) -> bytes:
    return (lsun / "data.mdb").read_bytes()


@pytest.fixture(scope="module")
def lsun_zip(lsun: Path) -> Path:
    members = {f"{NAME}/{file.name}": file.read_bytes() for file in sorted(lsun.iterdir())}
    return write_zip(lsun.parent / f"{NAME}.zip", members)


@pytest.fixture(scope="module")
def shards(lsun: Path) -> Path:
    """Shards of the LMDB, written without interruption by one process."""
    out = lsun.parent / "shards"
    write_shards(lsun, out, SIZE, shard_size=50, workers=1)
    return out


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def pixels(data: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side, left = image.height, (image.width - image.height) // 2
    return np.asarray(image.resize((size, size), box=(left, 0, left + side, side)), dtype=float)


def test_shards_hold_the_photographs_in_the_order_of_their_keys(shards, items) -> None:
    manifest = Manifest.read(shards)
    manifest.verify(shards)
    assert (manifest.count, len(manifest.shards)) == (COUNT, 6)
    assert (manifest.size, manifest.upsampled, manifest.shortest_side) == (SIZE, COUNT, SIDE)
    found: dict[str, bytes] = {}
    for entry in manifest.shards:
        with tarfile.open(shards / entry.name) as archive:
            found |= {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert list(found) == [f"{position:08d}.jpg" for position in range(COUNT)]
    for position, key in enumerate(sorted(items)):
        jpeg = found[f"{position:08d}.jpg"]
        assert Image.open(io.BytesIO(jpeg)).size == (SIZE, SIZE)
        assert np.abs(pixels(jpeg, SIZE) - pixels(items[key], SIZE)).mean() < 6


@pytest.mark.parametrize("workers", [1, 2])
def test_the_published_zip_gives_the_same_shards(lsun_zip, shards, tmp_path, workers) -> None:
    manifest = write_shards(lsun_zip, tmp_path / "out", SIZE, shard_size=50, workers=workers)
    assert tars(tmp_path / "out") == tars(shards)
    assert manifest.source == str(lsun_zip)
    assert len(read_images(lsun_zip, 5)) == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*tars(shards), "manifest.json"}


@pytest.mark.parametrize("per_mapping", [1, 7, COUNT - 1, COUNT, COUNT + 1])
def test_an_lmdb_is_read_in_order(per_mapping, lsun, items, monkeypatch) -> None:
    monkeypatch.setattr("lit_mbldm.data.sources.lsun.PER_MAPPING", per_mapping)
    unfinished = iter(open_source(lsun))  # as after an interrupt in a notebook
    assert next(unfinished).read() == items[min(items)]
    assert len(open_source(lsun / "data.mdb")) == COUNT
    found = {raw.name.encode(): raw.read() for raw in open_source(lsun)}
    assert found == items
    assert list(found) == sorted(items)


def test_a_read_only_lmdb_is_read(data: bytes, tmp_path: Path) -> None:
    folder = write_data(tmp_path / NAME, data)
    (folder / "data.mdb").chmod(0o444)
    folder.chmod(0o555)
    assert sum(len(raw.read()) for raw in open_source(folder)) > 0
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]
    folder.chmod(0o755)


def test_one_corrupt_value_of_300_is_skipped_and_named(items, tmp_path, capsys) -> None:
    bad = b"\xff\x00 no text"
    source = write_lmdb(tmp_path / NAME, {**dict(islice(items.items(), COUNT - 1)), bad: b"x"})
    manifest = write_shards(source, tmp_path / "out", SIZE, shard_size=100, workers=2)
    assert [skip["name"] for skip in manifest.skipped] == [r"\xff" + "\x00 no text"]
    assert [entry.count for entry in manifest.shards] == [100, 100, 99]
    assert "Skipped 1 images" in capsys.readouterr().err


def test_a_damaged_lmdb_is_told(data: bytes, tmp_path: Path) -> None:
    damaged = bytearray(data)
    for meta in (0, 4096):
        root = int.from_bytes(data[meta + 128 : meta + 136], "little") * 4096
        if root < len(data):
            damaged[root + 10 : root + 12] = bytes(2)  # a page that is neither branch nor leaf
    source = write_data(tmp_path / NAME, damaged)
    with pytest.raises(
        InputError, match=r"damaged \(.*CORRUPTED.*[Cc]opy it again; what is finished"
    ):
        write_shards(source, tmp_path / "out", SIZE, workers=1)


@pytest.mark.parametrize("kept", [0, 100, 5000, 0.5, -1, "noise", "version"], ids=str)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_no_whole_lmdb_is_refused(data, tmp_path, kept, zipped) -> None:
    if kept == "noise":
        data = random.Random(0).randbytes(len(data))
    elif kept == "version":
        data = data[:20] + b"\x09" + data[21 : 4096 + 20] + b"\x09" + data[4096 + 21 :]
    else:
        data = data[: int(len(data) * kept) if 0 < kept < 1 else int(kept)]  # type: ignore[operator]
    if zipped:
        source = write_zip(tmp_path / "a.zip", {f"{NAME}/data.mdb": data})
    else:
        source = write_data(tmp_path / NAME, data)
    with pytest.raises(
        InputError, match=r"data\.mdb.*(truncated|cannot be opened).*[Cc]opy it again"
    ):
        write_shards(source, tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_an_empty_lmdb_and_a_zip_of_several_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        open_source(write_lmdb(tmp_path / "empty", {}))
    several = write_zip(tmp_path / "a.zip", {"train/data.mdb": data, "val/data.mdb": data})
    with pytest.raises(InputError, match=r"train/data\.mdb, val/data\.mdb"):
        open_source(several)


def test_a_damaged_zip_is_named_and_nothing_is_taken_from_it(lsun_zip, tmp_path) -> None:
    zipped = bytearray(lsun_zip.read_bytes())
    zipped[len(zipped) // 2] ^= 1
    (tmp_path / "a.zip").write_bytes(zipped)
    with pytest.raises(InputError, match=r"data\.mdb in .*a\.zip cannot be unpacked .*Download"):
        write_shards(tmp_path / "a.zip", tmp_path / "out", SIZE, workers=1)
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_member_of_any_path_is_unpacked_in_its_place(data, shards, tmp_path) -> None:
    write_zip(tmp_path / "a.zip", {"../../../evil/data.mdb": data, "../../evil.txt": b"x"})
    write_shards(tmp_path / "a.zip", tmp_path / "deep" / "out", SIZE, shard_size=50, workers=1)
    assert tars(tmp_path / "deep" / "out") == tars(shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "deep"]


def test_a_zip_that_does_not_fit_is_not_begun(data, lsun_zip, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match=rf"needs {len(data):,} bytes in .*, 1,000 are free"):
        write_shards(lsun_zip, tmp_path / "out", SIZE, workers=1)


def test_the_command_downloads_a_zip(lsun_zip, tmp_path, capsys, httpserver, monkeypatch) -> None:
    data = lsun_zip.read_bytes()
    place, table = f"scenes/{lsun_zip.name}", tmp_path / "lsun.txt"
    httpserver.expect_request(f"/{place}").respond_with_data(data)
    table.write_text(f"{place} {len(data)} {hashlib.sha256(data).hexdigest()}\n")
    monkeypatch.setattr("lit_mbldm.data.sources.lsun_archives.TABLE", table)
    out = tmp_path / "data" / "church"
    command = ["shards", str(out), "--size", str(SIZE), "--download", "church_outdoor"]
    main([*command, "--base-url", httpserver.url_for("/")])
    printed = capsys.readouterr().out
    main([*command, "--base-url", httpserver.url_for("/")])
    kept = out.parent / lsun_zip.name
    assert kept.read_bytes() == data
    assert str(kept) in printed
    assert f"300 of them were enlarged to {SIZE}×{SIZE}: the shortest side was {SIDE}" in printed
    assert capsys.readouterr().err.count("nothing is left to do") == 1
    assert Manifest.read(out).count == COUNT
