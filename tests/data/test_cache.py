import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lit_mbldm.data.prepare.cache import cached_codes
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.errors import InputError

CODEC = Path(__file__).parent / "noting_codec.py"
# A process that needs the codes: notes the images it encodes, and what became of it.
CHILD = """
import os, runpy
from pathlib import Path
from lit_mbldm.data.prepare.cache import cached_codes

codec = runpy.run_path({codec!r})["NotingCodec"]({log!r}, {seconds})
{before}

try:
    folder = cached_codes({shards!r}, codec, Path({cache!r}), flip=True, device="cpu",
                          rank={rank}, world_size={world_size})
    count = len(list(folder.glob("codes-*.tar"))) if (folder / "manifest.json").exists() else 0
    text = f"{{folder}} {{count}}"
except Exception as error:
    text = f"{{type(error).__name__}}: {{error}}"
open({log!r} + ".{name}", "w").write(text)
"""
# Root may write anywhere, another user may not.
NOBODY = "if os.geteuid() == 0: os.setuid(65534)"


class Children:
    """Processes that need the codes of the same images."""

    def __init__(self, shards: Path, log: Path) -> None:
        self.shards, self.log = shards, log
        self._started: list[BaseProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["lit_mbldm.data.prepare.cache", "lit_mbldm.entries.load"]
        )

    def start(
        self,
        cache: Path,
        rank: int = 0,
        world_size: int = 1,
        seconds: float = 0.02,
        before: str = "",
    ) -> BaseProcess:
        code = CHILD.format(
            codec=str(CODEC),
            log=str(self.log),
            seconds=seconds,
            shards=str(self.shards),
            cache=str(cache),
            rank=rank,
            world_size=world_size,
            before=before,
            name=len(self._started),
        )
        process = self._context.Process(target=exec, args=(code, {}))
        process.start()
        self._started.append(process)
        return process

    def wait(self) -> list[str]:
        """What became of the processes, in the order they were started."""
        for process in self._started:
            process.join(60)
        logs = (Path(f"{self.log}.{name}") for name in range(len(self._started)))
        return [log.read_text() if log.exists() else "killed" for log in logs]

    def encoded(self) -> int:
        """Images encoded by all of them, with the flipped ones."""
        return sum(int(line) for line in self.log.read_text().split())

    def kill(self) -> None:
        for process in self._started:
            process.kill()
            process.join()


@pytest.fixture
def children(image_shards: Path, tmp_path: Path) -> Iterator[Children]:
    started = Children(image_shards, tmp_path / "log")
    yield started
    started.kill()


def cached(shards: Path, codec: object, cache: Path, flip: bool = True) -> Path:
    return cached_codes(str(shards), codec, cache, flip=flip, device="cpu", rank=0, world_size=1)


def test_codes_are_made_once(image_shards: Path, code_shards: Path, tmp_path: Path, codec) -> None:
    folder = cached(image_shards, codec, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert folder.name.startswith(codec.fingerprint[:16])
    for shard in code_shards.glob("*.tar"):
        assert (folder / shard.name).read_bytes() == shard.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    codec.encode = None
    assert cached(image_shards, codec, tmp_path / "cache") == folder
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")} == before


def test_another_codec_flip_or_image_has_its_own_folder(
    image_shards: Path, tmp_path: Path, codec, other_codec
) -> None:
    cache = tmp_path / "cache"
    folders = {
        cached(image_shards, codec, cache),
        cached(image_shards, other_codec, cache),
        cached(image_shards, codec, cache, flip=False),
        cached(image_shards / "images-000001.tar", codec, cache),
    }
    assert len(folders) == 4
    shutil.copytree(image_shards, tmp_path / "moved")
    assert cached(tmp_path / "moved", codec, cache) in folders


def test_ranks_share_the_work_and_all_wait_for_it(children: Children, tmp_path: Path) -> None:
    for rank in range(3):
        children.start(tmp_path / "cache", rank, 3)
    (result,) = set(children.wait())
    assert result.endswith(" 4")
    assert children.encoded() == 2 * 40


def test_independent_runs_do_no_shard_twice(children: Children, tmp_path: Path, codec) -> None:
    for _ in range(2):
        children.start(tmp_path / "cache")
    (result,) = set(children.wait())
    assert result.endswith(" 4")
    assert children.encoded() == 2 * 40
    Manifest.read(Path(result.split()[0])).verify(Path(result.split()[0]))


def test_each_node_fills_its_own_cache(children: Children, tmp_path: Path) -> None:
    for rank in range(2):
        children.start(tmp_path / f"node{rank}", rank, 2)
    assert all(result.endswith(" 4") for result in children.wait())
    assert children.encoded() == 2 * 2 * 40


def test_the_shard_of_a_process_that_dies_is_taken_over(children: Children, tmp_path: Path) -> None:
    doomed = children.start(tmp_path / "cache", 0, 2, seconds=60)
    while not children.log.exists():
        time.sleep(0.01)
    waiting = children.start(tmp_path / "cache", 1, 2)
    waiting.join(1.5)
    assert waiting.is_alive()
    os.kill(doomed.pid, signal.SIGKILL)
    results = children.wait()
    assert results[0] == "killed"
    assert results[1].endswith(" 4")


def test_a_failure_reaches_every_process(
    children: Children, image_shards: Path, tmp_path: Path
) -> None:
    shard = image_shards / "images-000002.tar"
    data = bytearray(shard.read_bytes())
    data[512:700] = bytes(188)
    shard.write_bytes(data)
    (image_shards / "manifest.json").unlink()
    for rank in range(3):
        children.start(tmp_path / "cache", rank, 3)
    (message,) = set(children.wait())
    assert message.startswith("InputError: 1 of 40 could not be used")
    assert "00000020" in message
    (folder,) = (tmp_path / "cache").iterdir()
    assert Manifest.read(folder).count == 39


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_changed_shard_is_not_filed_under_the_good_one_s_name(
    children: Children, image_shards: Path, tmp_path: Path, world_size: int
) -> None:
    shard = image_shards / "images-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    for rank in range(world_size):
        children.start(tmp_path / "cache", rank, world_size)
    (message,) = set(children.wait())
    assert "cannot be encoded:\n  images-000002.tar differs" in message
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "manifest.json").exists()


def test_a_full_disk_is_named_and_loses_nothing(children: Children, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
    children.start(tmp_path / "cache", 0, 1, before=limit.format(4096))
    (message,) = children.wait()
    assert message.startswith("InputError: The cache")
    for words in ("codes-00000", "make room and run the same command again"):
        assert words in message
    children.start(tmp_path / "cache")
    assert children.wait()[1].endswith(" 4")


def test_codes_are_not_encoded_again(code_shards: Path, tmp_path: Path, codec) -> None:
    with pytest.raises(InputError, match="Expected image shards"):
        cached(code_shards, codec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def public(image_shards: Path) -> Iterator[Path]:
    """A folder that every user can read, with the image shards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(image_shards, folder / "images")
        (folder / "logs").mkdir()
        (folder / "logs").chmod(0o777)
        (folder / "cache").mkdir()
        yield folder
        (folder / "cache").chmod(0o755)


def read_only(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.mark.parametrize("left_over", [False, True])
def test_a_read_only_cache_is_used_where_it_is_complete(
    public: Path, codec, left_over: bool
) -> None:
    folder = cached(public / "images", codec, public / "cache")
    if left_over:
        (folder / ".unfinished").mkdir()
        (folder / ".unfinished" / "recipe.json").touch()
    read_only(public / "cache")
    children = Children(public / "images", public / "logs" / "log")
    children.start(public / "cache", before=NOBODY)
    assert children.wait() == [f"{folder} 4"]
    assert not (public / "logs" / "log").exists()
    for path in folder.parent.rglob("*"):
        path.chmod(0o755)


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_cache_that_lacks_codes_is_an_error(public: Path, codec, begun: bool) -> None:
    if begun:
        folder = cached(public / "images", codec, public / "cache")
        (folder / "manifest.json").unlink()
        (folder / ".unfinished").mkdir()
    read_only(public / "cache")
    children = Children(public / "images", public / "logs" / "log")
    children.start(public / "cache", before=NOBODY)
    (message,) = children.wait()
    assert message.startswith("InputError: The cache")
    for words in ("cannot be written", "lit-mbldm encode", str(public / "cache")):
        assert words in message
    for path in (public / "cache").iterdir():
        path.chmod(0o755)
