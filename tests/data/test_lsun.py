"""LSUN's layout with real photographs: half of the values JPEG, half WebP, short side 64."""

import hashlib
import io
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer

from lit_mbldm.cli import main
from lit_mbldm.data.prepare.shard_folder import UNFINISHED
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.errors import InputError

COUNT, SIDE, SIZE = 300, 64, 96
NAME = "church_outdoor_train_lmdb"
SHIPPED = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def photographs() -> Iterator[Image.Image]:
    """Small parts of the shipped photographs."""
    rng = random.Random(0)
    shipped = [Image.open(path).convert("RGB") for path in sorted(SHIPPED.glob("*.jpg"))]
    while True:
        photo = rng.choice(shipped)
        left, top = rng.randrange(photo.width - 200), rng.randrange(photo.height - 200)
        yield photo.crop((left, top, left + 200, top + 160)).resize((SIDE + 16, SIDE))


def write_lmdb(folder: Path, items: dict[bytes, bytes]) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 28) as env, env.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    return folder


@pytest.fixture(scope="module")
def items() -> dict[bytes, bytes]:
    rng = random.Random(1)
    found = {}
    for number, photo in enumerate(islice(photographs(), COUNT)):
        stream = io.BytesIO()
        photo.save(stream, ("JPEG", "WEBP")[number % 2], quality=90)
        found[rng.randbytes(20).hex().encode()] = stream.getvalue()
    return found


@pytest.fixture(scope="module")
def lsun(items: dict[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lmdb(tmp_path_factory.mktemp("lsun") / NAME, items)


@pytest.fixture(scope="module")
def lsun_zip(lsun: Path) -> Path:
    path = lsun.parent / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(lsun.iterdir()):
            zipped.write(file, f"{NAME}/{file.name}")
    return path


@pytest.fixture(scope="module")
def shards(lsun: Path) -> Path:
    """Shards of the LMDB, written without interruption by one process."""
    out = lsun.parent / "shards"
    write_shards(lsun, out, SIZE, shard_size=50, workers=1)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def pixels(data: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side, left = image.height, (image.width - image.height) // 2
    return np.asarray(image.resize((size, size), box=(left, 0, left + side, side)), dtype=float)


def test_shards_hold_the_photographs_in_the_order_of_their_keys(
    shards: Path, items: dict[bytes, bytes]
) -> None:
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
def test_the_published_zip_gives_the_same_shards(
    lsun_zip: Path, shards: Path, tmp_path: Path, workers: int
) -> None:
    manifest = write_shards(lsun_zip, tmp_path / "out", SIZE, shard_size=50, workers=workers)
    assert contents(tmp_path / "out") == contents(shards)
    assert manifest.source == str(lsun_zip)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *contents(shards),
        "manifest.json",
    ]


def test_an_lmdb_is_read_in_order_and_several_times_at_once(
    lsun: Path, items: dict[bytes, bytes]
) -> None:
    first, second = iter(open_source(lsun)), iter(open_source(lsun / "data.mdb"))
    for raw, same in zip(islice(first, 3), islice(second, 3), strict=True):
        assert (raw.name, raw.read()) == (same.name, same.read())
    found = {raw.name.encode(): raw.read() for raw in open_source(lsun)}
    assert found == items
    assert list(found) == sorted(items)


@pytest.mark.parametrize("kind", ["folder", "data.mdb", "zip"])
def test_a_few_images_are_read_from_any_form(kind: str, lsun: Path, lsun_zip: Path) -> None:
    source = {"folder": lsun, "data.mdb": lsun / "data.mdb", "zip": lsun_zip}[kind]
    images = read_images(source, 5)
    assert len(images) == 5
    assert {image.size for image in images.values()} == {(SIDE + 16, SIDE)}


def test_a_read_only_lmdb_is_read(lsun: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    shutil.copy(lsun / "data.mdb", folder)
    (folder / "data.mdb").chmod(0o444)
    folder.chmod(0o555)
    assert sum(len(raw.read()) for raw in open_source(folder)) > 0
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]
    folder.chmod(0o755)


def test_one_corrupt_value_of_300_is_skipped_and_named(
    items: dict[bytes, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = b"\xff\x00 no text"
    source = write_lmdb(tmp_path / NAME, {**dict(islice(items.items(), COUNT - 1)), bad: b"x"})
    manifest = write_shards(source, tmp_path / "out", SIZE, shard_size=100, workers=2)
    assert manifest.count == COUNT - 1
    assert [skip["name"] for skip in manifest.skipped] == [r"\xff" + "\x00 no text"]
    assert [entry.count for entry in manifest.shards] == [100, 100, 99]
    assert "Skipped 1 images" in capsys.readouterr().err


def test_a_damaged_lmdb_is_told(lsun: Path, tmp_path: Path) -> None:
    data = bytearray((lsun / "data.mdb").read_bytes())
    for meta in (0, 4096):
        root = int.from_bytes(data[meta + 128 : meta + 136], "little") * 4096
        if root < len(data):
            data[root + 10 : root + 12] = bytes(2)  # a page that is neither branch nor leaf
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "data.mdb").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged \(.*CORRUPTED.*copy it again; what is finished"):
        write_shards(tmp_path / NAME, tmp_path / "out", SIZE, workers=1)


class Counting:
    """A source that notes what is read, and is interrupted at the image `stop`."""

    def __init__(self, folder: Path, stop: int) -> None:
        self.source = open_source(folder)
        self.name, self.ignored = self.source.name, self.source.ignored
        self.fingerprint = self.source.fingerprint
        self.stop = stop
        self.read: list[str] = []

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[RawImage]:
        return (RawImage(raw.name, partial(self.count, raw)) for raw in self.source)

    def count(self, raw: RawImage) -> bytes:
        if len(self.read) == self.stop:
            raise KeyboardInterrupt
        self.read.append(raw.name)
        return raw.read()


def test_values_of_finished_shards_are_not_read(lsun: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_shards(Counting(lsun, 120), out, SIZE, shard_size=50, workers=1)
    assert len(list(out.glob("*.tar"))) == 2
    rest = Counting(lsun, COUNT)
    write_shards(rest, out, SIZE, shard_size=50, workers=1)
    assert len(rest.read) == COUNT - 100


@pytest.mark.parametrize("kept", [0, 100, 5000, 0.5, -1], ids=str)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_lmdb_is_refused(lsun: Path, tmp_path: Path, kept: float, zipped: bool) -> None:
    data = (lsun / "data.mdb").read_bytes()
    stop = int(len(data) * kept) if 0 < kept < 1 else int(kept)
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "data.mdb").write_bytes(data[:stop])
    source = folder
    if zipped:
        source = tmp_path / "a.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(folder / "data.mdb", f"{NAME}/data.mdb")
    with pytest.raises(InputError, match=r"data\.mdb.*(truncated|cannot be opened).*copy it again"):
        write_shards(source, tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_other_files_and_versions_are_refused(lsun: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    data = bytearray((lsun / "data.mdb").read_bytes())
    (folder / "data.mdb").write_bytes(random.Random(0).randbytes(len(data)))
    with pytest.raises(InputError, match="not an LMDB file"):
        open_source(folder)
    data[20] = data[4096 + 20] = 9
    (folder / "data.mdb").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be opened \(.*[vV]"):
        open_source(folder)
    with pytest.raises(InputError, match="found none"):
        open_source(write_lmdb(tmp_path / "empty", {}))


def test_a_damaged_zip_is_named_and_nothing_is_taken_from_it(
    lsun_zip: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "a.zip"
    data = bytearray(lsun_zip.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(InputError, match=r"data\.mdb in .*a\.zip cannot be unpacked .*Download"):
        write_shards(damaged, tmp_path / "out", SIZE, workers=1)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_zip_of_several_lmdbs_is_refused(lsun: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for split in ("train", "val"):
            archive.write(lsun / "data.mdb", f"{split}/data.mdb")
    with pytest.raises(InputError, match=r"train/data\.mdb, val/data\.mdb"):
        open_source(tmp_path / "a.zip")


def test_a_member_of_any_path_is_unpacked_in_its_place(
    lsun: Path, shards: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(lsun / "data.mdb", "../../../evil/data.mdb")
        archive.writestr("../../evil.txt", "x")
    write_shards(tmp_path / "a.zip", tmp_path / "deep" / "out", SIZE, shard_size=50, workers=1)
    assert contents(tmp_path / "deep" / "out") == contents(shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "deep"]


def test_a_zip_that_does_not_fit_is_not_begun(
    lsun: Path, lsun_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (lsun / "data.mdb").stat().st_size
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match=rf"needs {size:,} bytes in .*, 1,000 are free"):
        write_shards(lsun_zip, tmp_path / "out", SIZE, workers=1)


WRITE = """
import sys
from lit_mbldm.data.prepare.write_shards import write_shards
source, out, size = sys.argv[1:]
write_shards(source, out, int(size), shard_size=50, workers=2)
"""


def start_writing(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITE, str(source), str(out), str(SIZE)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for found in lists for child in found.read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_folder(
    lsun_zip: Path, shards: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "out", random.Random()
    notes = out / UNFINISHED
    for done in (0, 1, 3, 5):
        with start_writing(lsun_zip, out) as process:
            wait_for(lambda n=done: notes.exists() and len(list(notes.glob("*.tar.json"))) >= n)
            time.sleep(rng.uniform(0, 0.1))
            workers = children(process.pid)
            process.kill()
        wait_for(lambda w=workers: not any(Path(f"/proc/{pid}").exists() for pid in w))
        if (out / "manifest.json").exists():
            break
        assert contents(out).items() <= contents(shards).items()
    with start_writing(lsun_zip, out) as process:
        assert process.wait() == 0
    assert contents(out) == contents(shards)
    unbroken = write_shards(lsun_zip, tmp_path / "unbroken", SIZE, shard_size=50, workers=1)
    assert Manifest.read(out) == unbroken
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "unbroken").iterdir()}


def test_the_command_downloads_and_keeps_the_zip(
    lsun_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], httpserver: HTTPServer
) -> None:
    data = lsun_zip.read_bytes()
    place = f"/scenes/{lsun_zip.name}"
    httpserver.expect_request(place).respond_with_data(data)
    httpserver.expect_request(f"{place}.sha256").respond_with_data(hashlib.sha256(data).hexdigest())
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
