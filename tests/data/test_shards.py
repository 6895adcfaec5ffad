import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from lit_mbldm.data.prepare.convert import Jpeg, convert, to_jpeg
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import UNFINISHED, Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.data.sources.raw_image import RawImage
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError

SIZE = 16
MakePhotos = Callable[..., Path]


def test_one_bad_of_200_is_skipped_and_the_manifest_tells(make_photos, tmp_path, capsys) -> None:
    photos = make_photos(200, bad=1)
    (photos / "notes.txt").write_text("x")
    written = write_shards(photos, tmp_path / "out", SIZE, workers=1)
    assert "000.png" in capsys.readouterr().err
    fields = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert fields["format"] == 1
    assert (fields["kind"], fields["size"], fields["count"]) == ("images", SIZE, 199)
    assert fields["source"] == str(photos)
    assert [entry["name"] for entry in fields["skipped"]] == ["000.png"]
    assert Manifest.read(tmp_path / "out") == written


@pytest.mark.parametrize(("count", "bad", "tolerated"), [(10, 1, 0.01), (3, 3, 1.0)])
def test_too_many_bad_images_fail_at_the_end(make_photos, tmp_path, count, bad, tolerated) -> None:
    photos, out = make_photos(count, bad), tmp_path / "out"
    with pytest.raises(InputError, match=rf"{bad} of {count} .*\n.*000\.png") as error:
        write_shards(photos, out, SIZE, workers=1, max_skipped=tolerated)
    assert str(out) in str(error.value)
    Manifest.read(out).verify(out)
    assert Manifest.read(out).count == count - bad


def test_a_bad_image_leaves_a_gap_and_moves_no_other(make_photos, tmp_path, members) -> None:
    photos = make_photos(12)
    write_shards(photos, tmp_path / "whole", SIZE, shard_size=5, workers=1)
    for name in ("003.png", "010.png"):
        (photos / name).write_bytes(b"no image")
    for name, size in (("004", (8, 40)), ("006", (15, 15)), ("011", (1, 1))):
        Image.new("RGB", size).save(photos / f"{name}.png")
    options = {"shard_size": 5, "workers": 1, "max_skipped": 0.5}
    gaps = write_shards(photos, tmp_path / "gaps", SIZE, **options)
    assert [entry.name for entry in gaps.shards] == ["images-000000.tar", "images-000001.tar"]
    before, after = (members(tmp_path / name / "images-000001.tar") for name in ("whole", "gaps"))
    assert [name for name in before if before[name] != after[name]] == ["00000006.jpg"]
    assert (gaps.upsampled, gaps.shortest_side) == (2, 8)
    assert "00000003.jpg" not in members(tmp_path / "gaps" / "images-000000.tar")
    assert [skip["name"] for skip in gaps.skipped] == ["003.png", "010.png", "011.png"]
    assert "too small" in gaps.skipped[2]["reason"]


def test_other_shards_are_not_overwritten(image_shards: Path, make_photos: MakePhotos) -> None:
    before = {path.name: path.read_bytes() for path in image_shards.iterdir()}
    with pytest.raises(InputError, match=r"already holds shards of .*photos with other settings"):
        write_shards(make_photos(2, folder="more"), image_shards, SIZE, workers=1)
    assert before == {path.name: path.read_bytes() for path in image_shards.iterdir()}


def test_the_same_call_again_only_looks(make_photos, tmp_path, capsys) -> None:
    photos = make_photos(4)
    first = write_shards(photos, tmp_path / "out", SIZE, workers=1)
    shard = tmp_path / "out" / "images-000000.tar"
    written = shard.stat().st_mtime_ns
    assert write_shards(photos, tmp_path / "out", SIZE, workers=1) == first
    assert "nothing is left to do" in capsys.readouterr().err
    assert shard.stat().st_mtime_ns == written
    data = shard.read_bytes()
    shard.write_bytes(data[:700] + b"x" + data[701:])
    with pytest.raises(InputError, match=r"images-000000\.tar"):
        first.verify(tmp_path / "out")
    shard.write_bytes(data[:-512])
    with pytest.raises(InputError, match=r"images-000000\.tar"):
        write_shards(photos, tmp_path / "out", SIZE, workers=1)


def test_an_interrupted_run_keeps_whole_shards_and_goes_on_with_the_same_only(
    make_photos, tmp_path, written
) -> None:
    photos, out, calls = make_photos(18), tmp_path / "out", itertools.count()

    def interrupted(data: bytes, size: int, quality: int) -> Jpeg:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return to_jpeg(data, size, quality)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_mbldm.data.prepare.convert.to_jpeg", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_shards(photos, out, SIZE, shard_size=5, workers=1)
    finished = written(out)
    assert [*finished] == ["images-000000.tar"]
    with pytest.raises(InputError, match="still being written"):
        open_source(out)
    with pytest.raises(InputError, match="begun with another size"):
        write_shards(photos, out, 2 * SIZE, shard_size=5, workers=1)
    with pytest.raises(InputError, match="begun with another source"):
        write_shards(make_photos(17, folder="other"), out, SIZE, shard_size=5, workers=1)
    manifest = write_shards(photos, out, SIZE, shard_size=5, workers=1)
    manifest.verify(out)
    assert finished.items() <= written(out).items()
    assert manifest == write_shards(photos, tmp_path / "b", SIZE, shard_size=5, workers=1)


# shards of 5 images, of which no file may be larger than a number of bytes
COMMAND = """
import resource, sys
from lit_mbldm.cli import main
from lit_mbldm.data.prepare import write_shards as shards
shards.write_shards.__kwdefaults__.update(shard_size=5)
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main(["shards", *sys.argv[1:], "--size", "64"])
"""


def test_a_full_disk_keeps_what_is_finished(make_photos, tmp_path, written) -> None:
    photos, out = make_photos(5), tmp_path / "out"
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(photos / f"noise{number}.png")
    command = [sys.executable, "-c", COMMAND, "60000", str(photos), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "images-000001.tar" in ran.stderr.splitlines()[-1]
    assert "make room and run the same command again" in ran.stderr.splitlines()[-1]
    finished = written(out)
    assert [*finished] == ["images-000000.tar"]
    write_shards(photos, out, 64, shard_size=5, workers=1).verify(out)
    assert finished.items() <= written(out).items()


@pytest.mark.parametrize("name", ["a.rar", "a.zip"])
def test_files_that_are_no_source_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"Expected a.*{name}"):
        write_shards(tmp_path / name, tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    names = ["a/b/z.png", "a/c.png", "a.png", "a-1.png", "b.png", "a/b.png", "a0.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    source = open_source(tmp_path)
    assert [raw.name for raw in source] == sorted(names)
    assert len(source) == len(names)


def pack_folder(folder: Path) -> Path:
    return folder


def pack_tar(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tar"), "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return folder.with_suffix(".tar")


def pack_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"../../{path.name}")
    return folder.with_suffix(".zip")


def pack_lmdb(folder: Path) -> Path:
    packed = folder.with_suffix(".lmdb")
    packed.mkdir()
    with lmdb.open(str(packed), map_size=1 << 30) as env, env.begin(write=True) as transaction:
        for path in sorted(folder.iterdir()):
            transaction.put(path.name.encode(), path.read_bytes())
    return packed


@pytest.mark.parametrize("pack", [pack_tar, pack_zip, pack_lmdb])
def test_each_kind_of_source_gives_the_same_images(make_photos, pack) -> None:
    photos = make_photos(4)
    expected = [raw.read() for raw in open_source(photos)]
    assert [raw.read() for raw in open_source(pack(photos))] == expected


@pytest.mark.parametrize("cut", [10_240, 10_500, 10_780], ids=["between", "header", "data"])
def test_a_truncated_tar_loses_only_its_end(make_photos, tmp_path, cut) -> None:
    tar = pack_tar(make_photos(20))
    tar.write_bytes(tar.read_bytes()[:cut])
    manifest = write_shards(tar, tmp_path / "out", SIZE, workers=1, max_skipped=0.2)
    assert manifest.count == 10
    assert any(tar.name in entry["name"] for entry in manifest.skipped)


@pytest.mark.parametrize("kept", [0, 7 * 1024 + 300], ids=["empty", "7 of 10"])
def test_what_a_cut_shard_lost_is_counted(image_shards, tmp_path, kept, members) -> None:
    assert open_source(image_shards).name == str(image_shards)
    shard = image_shards / "images-000001.tar"
    with tarfile.open(shard) as archive:
        offsets = [member.offset for member in archive]
    shard.write_bytes(shard.read_bytes()[: offsets[7] + 300 if kept else 0])
    lost = 3 if kept else 10
    with pytest.raises(InputError, match=f"{lost} of 40 .*1.00%.*\n.*images-000001.*{lost} samp"):
        write_shards(image_shards, tmp_path / "out", SIZE, shard_size=10, workers=1)
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.count == 40 - lost
    assert [(skip["name"], skip["count"]) for skip in manifest.skipped] == [(shard.name, lost)]
    names = {name for path in (tmp_path / "out").glob("*.tar") for name in members(path)}
    assert names == {f"{n:08d}.jpg" for n in range(40) if not 20 - lost <= n < 20}


def test_a_shard_that_its_manifest_names_and_is_missing_is_told(image_shards: Path) -> None:
    (image_shards / "images-000001.tar").unlink()
    with pytest.raises(InputError, match=r"missing: images-000001\.tar"):
        open_source(image_shards)


def test_photographs_are_read_without_torch() -> None:
    script = "import sys, lit_mbldm.data.prepare.write_shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_an_image_among_shards_is_refused(image_shards: Path) -> None:
    Image.new("RGB", (20, 20)).save(image_shards / "grid.png")
    with pytest.raises(InputError, match=r"either .* 1 images and 4 tars, grid\.png"):
        open_source(image_shards)


def test_a_folder_is_read_as_it_was_opened(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(20)
    source = open_source(photos)
    Image.new("RGB", (20, 20)).save(photos / "new.png")
    assert write_shards(source, tmp_path / "out", SIZE, workers=1).count == 20
    (photos / "003.png").unlink()
    with pytest.raises(InputError, match=r"1 of 20 .*\n.*003\.png: cannot be read"):
        write_shards(source, tmp_path / "fewer", SIZE, workers=1)


def test_the_bytes_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_mbldm.data.prepare.convert.IN_FLIGHT_BYTES", 10_000_000)
    read, given, most = 0, 0, 0

    def large() -> bytes:
        nonlocal read, most
        read += 1
        most = max(most, read - given)
        return bytes(3_000_000)

    images = ((number, RawImage(str(number), large)) for number in range(30))
    for converted in convert(images, SIZE, 90, 2):
        assert (converted.position, type(converted.result)) == (given, ImageError)
        given += 1
    assert (given, most) == (30, 4)  # three in flight, and the one that waits


def test_a_killed_worker_is_told(make_photos, tmp_path, monkeypatch, written) -> None:
    monkeypatch.setattr("lit_mbldm.data.prepare.convert.MIN_CHUNKS", 1)
    photos, out = make_photos(200), tmp_path / "out"
    source = open_source(photos)

    def killing() -> Iterator[RawImage]:  # a process that converts, while one image is read
        for position, image in enumerate(source):
            if position == 150:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            yield image

    with pytest.raises(InputError, match=r"killed at \d+\.png or .*want of memory.*same command"):
        write_shards(replace(source, start=killing), out, SIZE, shard_size=20, workers=2)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finished = written(out)
    assert len(finished) >= 3
    manifest = write_shards(photos, out, SIZE, shard_size=20, workers=2)
    assert finished.items() <= written(out).items()
    assert manifest == write_shards(photos, tmp_path / "whole", SIZE, shard_size=20, workers=1)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("moment", ["recipe", "images-*.tar"])
def test_interrupted_or_killed_it_goes_on(make_photos, tmp_path, written, moment, kill) -> None:
    photos, out = make_photos(250), tmp_path / "out"
    for path in [*photos.iterdir()]:
        for copy in range(5):
            shutil.copy(path, photos / f"{copy}-{path.name}")
    args = [sys.executable, "-c", COMMAND, "-1", str(photos), str(out)]

    def heed_interrupts() -> None:  # which a shell has its background processes ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        args, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed_interrupts
    ) as process:
        while not list((out / UNFINISHED).glob(moment)):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(random.SystemRandom().uniform(0, 0.3))  # its processes may be starting
        finished = written(out)
        process.kill() if kill else os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate()[1].decode()
    if not kill:
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert errors.splitlines()[-1] == "Interrupted; run the same command again to go on."
    assert subprocess.run(args, capture_output=True).returncode == 0
    assert finished.items() <= written(out).items()
    Manifest.read(out).verify(out)
    assert Manifest.read(out).count == 1500


def test_a_manifest_cannot_name_files_elsewhere(image_shards: Path) -> None:
    path = image_shards / "manifest.json"
    path.write_text(path.read_text().replace("images-000000.tar", "../images-000000.tar"))
    with pytest.raises(InputError, match="outside"):
        Manifest.read(image_shards)


MEMORY = """
import re, resource, sys
from pathlib import Path
from lit_mbldm.data.prepare.write_shards import write_shards
write_shards(sys.argv[1], sys.argv[2], 64, workers=2)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pack", [pack_folder, pack_lmdb, pack_zip, pack_tar])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, pack) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    peaks = []
    for count in (1000, 10_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        Image.fromarray(noise).save(folder / "00000000.png")
        for number in range(1, count):
            os.link(folder / "00000000.png", folder / f"{number:08d}.png")
        command = [sys.executable, "-c", MEMORY, str(pack(folder)), str(tmp_path / f"out{count}")]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append([int(line) / 1024 for line in ran.stdout.split()])
    print(pack, peaks)
    for few, many in zip(*peaks, strict=True):
        assert many < few + 20
