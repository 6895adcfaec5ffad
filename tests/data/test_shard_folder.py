import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_mbldm.data.prepare.shard_folder import Part, ShardFolder
from lit_mbldm.data.shards.manifest import UNFINISHED, Manifest
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.errors import InputError

NAMES = [f"images-{number:06d}.tar" for number in range(4)]


def opened(folder: Path) -> ShardFolder:
    return ShardFolder(folder, NAMES, {"size": 8, "source": "photos"})


def describe(parts: list[Part]) -> dict[str, int]:
    return {"size": sum(part.facts["n"] for part in parts)}


def write(folder: ShardFolder, name: str, data: bytes = b"b") -> None:
    skips = SkipLog()
    skips.add(name, "bad")
    folder.write(name, [("a.jpg", name.encode()), ("b.jpg", data)], skips, {"n": 2})


def finish(folder: ShardFolder) -> Manifest:
    for name in NAMES:
        if not folder.has(name):
            write(folder, name)
    return folder.finish("images", "photos", describe)


@pytest.fixture
def whole(tmp_path: Path, contents) -> dict[str, bytes]:
    """What a folder holds in the end."""
    finish(opened(tmp_path / "whole"))
    found = contents(tmp_path / "whole")
    assert sorted(found) == [*NAMES, "manifest.json"]
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_folder_is_finished_by_several_starts(out: Path, whole, contents, written) -> None:
    write(opened(out), NAMES[2])
    later = opened(out)
    assert [later.has(name) for name in NAMES] == [False, False, True, False]
    with pytest.raises(FileNotFoundError):
        later.finish("images", "photos", describe)
    before = written(out)
    manifest = finish(later)
    assert before.items() <= written(out).items()
    assert contents(out) == whole
    assert (manifest.count, manifest.size) == (8, 8)
    assert [skip["name"] for skip in manifest.skipped] == NAMES
    assert Manifest.read(out) == manifest
    (out / UNFINISHED).mkdir()  # left by a kill after the manifest
    (out / UNFINISHED / "data.mdb").touch()
    opened(out)
    assert contents(out) == whole


@pytest.mark.parametrize("moved", [False, True])
def test_who_comes_late_changes_nothing(out: Path, moved: bool, whole, contents) -> None:
    late = opened(out)
    if moved:  # a process that was killed before it wrote the manifest
        for name in NAMES:
            write(late, name)
        shutil.move(out / UNFINISHED / NAMES[0] / NAMES[0], out / NAMES[0])
    manifest = finish(opened(out))
    assert late.manifest() == manifest
    assert all(late.has(name) for name in NAMES)
    write(late, NAMES[0], b"others")
    assert finish(late) == manifest
    assert contents(out) == whole
    assert not (out / UNFINISHED).exists()


def test_of_two_that_write_a_shard_at_once_the_first_stays(out: Path, whole, contents) -> None:
    slow, fast = opened(out), opened(out)

    def members() -> Iterator[tuple[str, bytes]]:
        yield "a.jpg", b"other bytes"
        write(fast, NAMES[0])

    slow.write(NAMES[0], members(), SkipLog(), {"n": 3})
    finish(slow)
    assert contents(out) == whole


@pytest.mark.parametrize("turn", range(5))
def test_many_at_once_end_with_the_same_folder(out: Path, turn: int, whole, contents) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: finish(opened(out)), range(8)))
    assert found == [Manifest.read(out)] * 8
    assert contents(out) == whole


def test_foreign_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="already holds shards"):
        opened(tmp_path)
