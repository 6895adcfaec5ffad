import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_mbldm.data.prepare.shard_folder import UNFINISHED, Part, ShardFolder
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.errors import InputError

NAMES = [f"images-{number:06d}.tar" for number in range(4)]
RECIPE = {"size": 8, "source": "photos"}


def build(parts: list[Part]) -> Manifest:
    entries = [part.entry for part in parts if part.entry]
    skips = [skip for part in parts for skip in part.skips]
    return Manifest("images", sum(entry.count for entry in entries), "photos", entries, skips)


def write(folder: ShardFolder, name: str) -> None:
    skips = [{"name": name, "reason": "bad"}]
    folder.write(name, [("a.jpg", name.encode()), ("b.jpg", b"b")], lambda: (skips, {"n": 2}))


def finish(folder: ShardFolder) -> Manifest:
    for name in NAMES:
        with folder.claim(name) as mine:
            if mine:
                write(folder, name)
    manifest = folder.finish(build)
    assert manifest is not None
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_finished_by_several_starts(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(ShardFolder(whole, NAMES, RECIPE))
    first = ShardFolder(parts, NAMES, RECIPE)
    write(first, NAMES[2])
    assert first.finish(build) is None
    later = ShardFolder(parts, NAMES, RECIPE)
    part = later.part(NAMES[2])
    assert part is not None
    assert part.facts == {"n": 2}
    written = (parts / NAMES[2]).stat().st_mtime_ns
    manifest = finish(later)
    assert (parts / NAMES[2]).stat().st_mtime_ns == written
    assert contents(parts) == contents(whole)
    assert [skip["name"] for skip in manifest.skipped] == NAMES
    assert Manifest.read(parts) == manifest


def test_a_finished_folder_takes_no_more_claims(tmp_path: Path) -> None:
    early = ShardFolder(tmp_path, NAMES, RECIPE)
    manifest = finish(ShardFolder(tmp_path, NAMES, RECIPE))
    for folder in (early, ShardFolder(tmp_path, NAMES, RECIPE)):
        assert folder.manifest() == manifest
        with folder.claim(NAMES[0]) as mine:
            assert not mine
        assert folder.finish(build) == manifest
        assert not (tmp_path / UNFINISHED).exists()


def test_what_a_kill_after_the_manifest_left_is_removed(tmp_path: Path) -> None:
    finish(ShardFolder(tmp_path, NAMES, RECIPE))
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / UNFINISHED / "data.mdb").touch()
    ShardFolder(tmp_path, NAMES, RECIPE)
    assert sorted(contents(tmp_path)) == [*NAMES, "manifest.json"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match=r"no file locks.*Choose a folder"):
        ShardFolder(tmp_path, NAMES, RECIPE)


def test_shards_without_samples_leave_a_gap(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, NAMES, RECIPE)
    folder.write(NAMES[1], None, lambda: ([{"name": "x", "reason": "bad", "count": 2}], {}))
    manifest = finish(folder)
    assert [entry.name for entry in manifest.shards] == [NAMES[0], *NAMES[2:]]
    assert manifest.skipped[1]["count"] == 2


def test_a_claim_is_held_alone(tmp_path: Path) -> None:
    first, second = (ShardFolder(tmp_path, NAMES, RECIPE) for _ in range(2))
    with first.claim(NAMES[0]) as mine:
        assert mine
        with second.claim(NAMES[0]) as taken, second.claim(NAMES[1]) as free:
            assert not taken
            assert free
        write(first, NAMES[0])
    with second.claim(NAMES[0]) as mine:
        assert not mine


def test_one_process_may_keep_the_folder_to_itself(tmp_path: Path) -> None:
    first, second = (ShardFolder(tmp_path, NAMES, RECIPE) for _ in range(2))
    with first.alone(), pytest.raises(InputError, match="Another process"), second.alone():
        pass
    with second.alone():
        pass


@pytest.mark.parametrize("turn", range(5))
def test_many_at_once_write_each_shard_once(tmp_path: Path, turn: int) -> None:
    written: list[str] = []

    def work(number: int) -> None:
        folder = ShardFolder(tmp_path, NAMES, RECIPE)
        for name in NAMES:
            with folder.claim(name) as mine:
                if mine:
                    write(folder, name)
                    written.append(name)
        folder.finish(build)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(written) == NAMES
    assert sorted(contents(tmp_path)) == [*NAMES, "manifest.json"]


@pytest.mark.parametrize("finished", [False, True])
def test_another_recipe_is_refused(tmp_path: Path, finished: bool) -> None:
    folder = ShardFolder(tmp_path, NAMES, RECIPE)
    write(folder, NAMES[0])
    if finished:
        finish(folder)
    with pytest.raises(InputError, match="other settings" if finished else "another size.*times"):
        ShardFolder(tmp_path, NAMES, {**RECIPE, "size": 16})


def test_foreign_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="already holds shards"):
        ShardFolder(tmp_path, NAMES, RECIPE)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_finished_folder_with_a_damaged_shard_names_it(tmp_path: Path, damage: str) -> None:
    finish(ShardFolder(tmp_path, NAMES, RECIPE))
    shard = tmp_path / NAMES[1]
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(b"short")
    with pytest.raises(InputError, match=NAMES[1]):
        ShardFolder(tmp_path, NAMES, RECIPE)


def test_a_damaged_shard_of_an_unfinished_folder_is_written_again(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, NAMES, RECIPE)
    write(folder, NAMES[0])
    good = (tmp_path / NAMES[0]).read_bytes()
    (tmp_path / NAMES[0]).write_bytes(good[:1000])
    finish(ShardFolder(tmp_path, NAMES, RECIPE))
    assert (tmp_path / NAMES[0]).read_bytes() == good


KILLED = """
import sys, time
from pathlib import Path
from lit_mbldm.data.prepare.shard_folder import ShardFolder
def members():
    yield "a.jpg", bytes(100_000)
    print("writing", flush=True)
    time.sleep(60)
folder = ShardFolder(Path(sys.argv[1]), ["images-%06d.tar" % n for n in range(4)],
                     {"size": 8, "source": "photos"})
with getattr(folder, sys.argv[2])(*sys.argv[3:]):
    folder.write("images-000000.tar", members(), lambda: ([], {}))
"""


@pytest.mark.parametrize("hold", [["claim", NAMES[0]], ["alone"]])
def test_a_killed_process_lets_go_and_leaves_nothing_behind(
    tmp_path: Path, hold: list[str]
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), *hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert any(path.suffix == ".tmp" for path in tmp_path.iterdir())
        folder = ShardFolder(tmp_path, NAMES, RECIPE)
        if hold[0] == "claim":
            with folder.claim(NAMES[0]) as mine:
                assert not mine
        process.send_signal(signal.SIGKILL)
        process.wait()
    if hold[0] == "alone":
        with folder.alone():
            assert not any(path.suffix == ".tmp" for path in tmp_path.iterdir())
    finish(folder)
    assert sorted(contents(tmp_path)) == [*NAMES, "manifest.json"]
