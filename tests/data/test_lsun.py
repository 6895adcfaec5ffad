"""LSUN's layout with real photographs: half of the values JPEG, half WebP, short side 64."""

import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import lmdb
import numpy as np
import pytest
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.data.prepare.shard_folder import UNFINISHED
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.lmdb_reader import LmdbReader
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.errors import InputError

COUNT, SIDE, SIZE = 300, 64, 96
NAME = "church_outdoor_train_lmdb"
SHARED = Path(os.environ.get("LIT_MBLDM_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHIPPED = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def photographs() -> Iterator[Image.Image]:
    """Small photographs: those at hand, else parts of the shipped ones."""
    for path in sorted(SHARED.glob("cats200/*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith((".jpg", ".png")):
                    photo = Image.open(archive.extractfile(member))  # type: ignore[arg-type]
                    yield photo.convert("RGB").resize((SIDE + 16, SIDE))
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


def test_a_mapping_is_renewed_without_losing_an_image(
    lsun: Path, items: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in (1, 7, COUNT - 1, COUNT, COUNT + 1):
        monkeypatch.setattr("lit_mbldm.data.sources.lsun.PER_MAPPING", length)
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


def test_more_than_one_percent_fails_with_all_the_rest_written(
    items: dict[bytes, bytes], tmp_path: Path
) -> None:
    corrupt = {key: items[key][:-40] for key in sorted(items)[100:104]}
    source = write_lmdb(tmp_path / NAME, {**items, **corrupt})
    write = partial(write_shards, source, tmp_path / "out", SIZE, shard_size=100, workers=2)
    with pytest.raises(InputError, match=r"4 of 300 .*1\.00%") as error:
        write()
    assert sorted(corrupt)[0].decode() in str(error.value)
    Manifest.read(tmp_path / "out").verify(tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="4 of 300"):
        write()
    manifest = write(max_skipped=0.02)
    assert manifest.count == COUNT - 4
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """An LMDB with a few pages, which may be the first ones, exchanged or overwritten in part."""
    pages = [bytearray(data[start : start + 4096]) for start in range(0, len(data), 4096)]
    for _ in range(rng.choice([1, 3, 20])):
        page = rng.choice(pages)
        kind = rng.choice(["bits", "header", "zeros", "noise", "exchanged"])
        if kind == "bits":
            page[rng.randrange(len(page))] ^= 1 << rng.randrange(8)
        elif kind == "header":
            page[rng.randrange(32)] = rng.randrange(256)
        elif kind == "exchanged":
            page[:] = rng.choice(pages)
        else:
            page[:] = bytes(len(page)) if kind == "zeros" else rng.randbytes(len(page))
    return b"".join(pages)


FUZZ = """
import sys
from pathlib import Path
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.errors import InputError
for source in sorted(Path(sys.argv[1]).glob(sys.argv[2])):
    try:
        manifest = write_shards(source, f"{source}-out", 8, workers=1, max_skipped=1)
        assert manifest.count + len(manifest.skipped) == 200
        print(source.name, "skips" if manifest.skipped else "whole")
    except InputError as error:
        print(source.name, "refused", str(error).replace(str(source), "HERE"))
"""


@pytest.mark.slow
def test_a_damaged_lmdb_kills_no_command(tmp_path: Path) -> None:
    values = [io.BytesIO(), io.BytesIO()]
    for side, stream in zip((8, 40), values, strict=True):  # in the tree, and on pages of its own
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(stream, "PNG")
    items = {b"%040d" % number: values[number % 5 == 0].getvalue() for number in range(200)}
    data = (write_lmdb(tmp_path / "whole", items) / "data.mdb").read_bytes()
    rng = random.Random(0)
    for number in range(30):
        folder = tmp_path / "damaged" / f"{number:02d}"
        folder.mkdir(parents=True)
        (folder / "data.mdb").write_bytes(damaged(data, rng))
    command = [sys.executable, "-c", FUZZ, str(tmp_path / "damaged")]
    outcomes: list[str] = []
    running = [
        subprocess.Popen([*command, f"?[{digits}]"], stdout=subprocess.PIPE, text=True)
        for digits in ("0-4", "5-9")
    ]
    for process in running:
        outcomes += process.communicate()[0].splitlines()
        assert process.returncode == 0
    assert len(outcomes) == 30
    assert {line.split()[1] for line in outcomes} == {"whole", "skips", "refused"}
    refused = [line for line in outcomes if "refused" in line]
    assert all(re.search(r"HERE.*(ownload or copy it again|could not be used)", r) for r in refused)
    assert any("reading it ends in SIG" in line for line in refused)


def test_values_of_finished_shards_are_not_sent(
    lsun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "out", []
    value = LmdbReader.value

    def counting(self: LmdbReader, key: bytes) -> bytes:
        if len(asked) == 120:
            raise KeyboardInterrupt
        asked.append(key)
        return value(self, key)

    monkeypatch.setattr(LmdbReader, "value", counting)
    with pytest.raises(KeyboardInterrupt):
        write_shards(lsun, out, SIZE, shard_size=50, workers=1)
    assert len(list((out / UNFINISHED).glob("*.tar"))) == 2
    asked[:] = []
    monkeypatch.setattr(
        LmdbReader, "value", lambda self, key: asked.append(key) or value(self, key)
    )
    write_shards(lsun, out, SIZE, shard_size=50, workers=1)
    assert len(asked) == COUNT - 100


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
    class Usage:
        free = 1000

    size = (lsun / "data.mdb").stat().st_size
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
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
            wait_for(lambda n=done: notes.exists() and len(list(notes.glob("*.tar"))) >= n)
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


def test_finished_shards_are_not_made_again(lsun: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start_writing(lsun, out) as process:
        wait_for(lambda: len(list((out / UNFINISHED).glob("*.tar"))) >= 2)
        process.kill()
    finished = {p.name: p.stat().st_mtime_ns for p in (out / UNFINISHED).glob("*.tar/*.tar")}
    assert 2 <= len(finished) < 6
    write_shards(lsun, out, SIZE, shard_size=50, workers=1)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    assert contents(out) == contents(shards)


def test_two_runs_at_once_do_no_harm(lsun: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start_writing(lsun, out) as process:
        wait_for((out / UNFINISHED / "recipe").exists)
        manifest = write_shards(lsun, out, SIZE, shard_size=50, workers=1)
        assert process.wait() == 0
    assert contents(out) == contents(shards)
    manifest.verify(out)


def test_the_command_downloads_and_keeps_the_zip(
    lsun_zip: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site" / "scenes"
    site.mkdir(parents=True)
    shutil.copy(lsun_zip, site)
    sha256 = hashlib.sha256(lsun_zip.read_bytes()).hexdigest()
    (site / f"{lsun_zip.name}.sha256").write_text(sha256)
    handler = partial(SimpleHTTPRequestHandler, directory=str(site.parent))
    out = tmp_path / "data" / "church"
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        command = ["shards", str(out), "--size", str(SIZE), "--download", "church_outdoor"]
        main([*command, "--base-url", url])
        printed = capsys.readouterr().out
        main([*command, "--base-url", url])
        server.shutdown()
    kept = out.parent / lsun_zip.name
    assert kept.read_bytes() == lsun_zip.read_bytes()
    assert str(kept) in printed
    assert f"300 of them were enlarged to {SIZE}×{SIZE}: the shortest side was {SIDE}" in printed
    assert capsys.readouterr().err.count("nothing is left to do") == 1
    assert Manifest.read(out).count == COUNT
