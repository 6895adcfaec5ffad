import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_mbldm.data.prepare.shard_folder import UNFINISHED, Part, ShardFolder
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.errors import InputError

NAMES = [f"images-{number:06d}.tar" for number in range(4)]
RECIPE = {"size": 8, "source": "photos"}


def describe(parts: list[Part]) -> dict[str, int]:
    return {"size": sum(part.facts["n"] for part in parts)}


def write(folder: ShardFolder, name: str, data: bytes = b"b") -> None:
    skips = [{"name": name, "reason": "bad"}]
    folder.write(name, [("a.jpg", name.encode()), ("b.jpg", data)], lambda: (skips, {"n": 2}))


def finish(folder: ShardFolder) -> Manifest:
    for name in NAMES:
        if not folder.has(name):
            write(folder, name)
    return folder.finish("images", "photos", describe)


@pytest.fixture
def whole(tmp_path: Path, contents) -> dict[str, bytes]:
    """What a folder holds in the end."""
    finish(ShardFolder(tmp_path / "whole", NAMES, RECIPE))
    found = contents(tmp_path / "whole")
    assert sorted(found) == [*NAMES, "manifest.json"]
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_folder_is_finished_by_several_starts(out: Path, whole, contents) -> None:
    write(ShardFolder(out, NAMES, RECIPE), NAMES[2])
    later = ShardFolder(out, NAMES, RECIPE)
    assert [later.has(name) for name in NAMES] == [False, False, True, False]
    with pytest.raises(FileNotFoundError):
        later.finish("images", "photos", describe)
    (written,) = out.rglob(f"{NAMES[2]}/*.tar")
    inode = written.stat().st_ino
    manifest = finish(later)
    assert (out / NAMES[2]).stat().st_ino == inode
    assert contents(out) == whole
    assert (manifest.count, manifest.size) == (8, 8)
    assert [skip["name"] for skip in manifest.skipped] == NAMES
    assert Manifest.read(out) == manifest


@pytest.mark.parametrize("moved", [False, True])
def test_who_comes_late_changes_nothing(out: Path, moved: bool, whole, contents) -> None:
    late = ShardFolder(out, NAMES, RECIPE)
    if moved:  # a process that was killed before it wrote the manifest
        for name in NAMES:
            write(late, name)
        shutil.move(out / UNFINISHED / NAMES[0] / NAMES[0], out / NAMES[0])
    manifest = finish(ShardFolder(out, NAMES, RECIPE))
    assert late.manifest() == manifest
    assert all(late.has(name) for name in NAMES)
    write(late, NAMES[0], b"others")
    assert finish(late) == manifest
    assert contents(out) == whole
    assert not (out / UNFINISHED).exists()


def test_of_two_that_write_a_shard_at_once_the_first_stays(out: Path, whole, contents) -> None:
    slow, fast = (ShardFolder(out, NAMES, RECIPE) for _ in range(2))

    def members() -> Iterator[tuple[str, bytes]]:
        yield "a.jpg", b"other bytes"
        write(fast, NAMES[0])

    slow.write(NAMES[0], members(), lambda: ([], {"n": 3}))
    finish(slow)
    assert contents(out) == whole


def test_what_a_kill_after_the_manifest_left_is_removed(out: Path, whole, contents) -> None:
    finish(ShardFolder(out, NAMES, RECIPE))
    (out / UNFINISHED).mkdir()
    (out / UNFINISHED / "data.mdb").touch()
    ShardFolder(out, NAMES, RECIPE)
    assert contents(out) == whole


def test_shards_without_samples_leave_a_gap(out: Path) -> None:
    folder = ShardFolder(out, NAMES, RECIPE)
    folder.write(NAMES[1], [], lambda: ([{"name": "x", "reason": "bad", "count": 2}], {"n": 2}))
    manifest = finish(folder)
    assert [entry.name for entry in manifest.shards] == [NAMES[0], *NAMES[2:]]
    assert not (out / NAMES[1]).exists()
    assert manifest.skipped[1]["count"] == 2


@pytest.mark.parametrize("turn", range(5))
def test_many_at_once_end_with_the_same_folder(out: Path, turn: int, whole, contents) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: finish(ShardFolder(out, NAMES, RECIPE)), range(8)))
    assert found == [Manifest.read(out)] * 8
    assert contents(out) == whole


@pytest.mark.parametrize("finished", [False, True])
def test_another_recipe_is_refused(out: Path, finished: bool) -> None:
    folder = ShardFolder(out, NAMES, RECIPE)
    write(folder, NAMES[0])
    if finished:
        finish(folder)
    with pytest.raises(InputError, match="other settings" if finished else "another size.*times"):
        ShardFolder(out, NAMES, {**RECIPE, "size": 16})


def test_foreign_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="already holds shards"):
        ShardFolder(tmp_path, NAMES, RECIPE)


@pytest.mark.parametrize("damage", [Path.unlink, lambda shard: shard.write_bytes(b"short")])
def test_a_finished_folder_with_a_damaged_shard_names_it(out: Path, damage) -> None:
    finish(ShardFolder(out, NAMES, RECIPE))
    damage(out / NAMES[1])
    with pytest.raises(InputError, match=NAMES[1]):
        ShardFolder(out, NAMES, RECIPE)


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
folder.write("images-000000.tar", members(), lambda: ([], {}))
"""


def test_a_killed_process_leaves_nothing_behind(out: Path, whole, contents) -> None:
    command = [sys.executable, "-c", KILLED, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(ShardFolder(out, NAMES, RECIPE))
    assert contents(out) == whole
