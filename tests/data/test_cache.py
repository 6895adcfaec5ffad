import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_mbldm.data.prepare.encode import cached_codes
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.manifest import Manifest

# Root may write anywhere, another user may not.
NOBODY = "if os.geteuid() == 0: os.setuid(65534)"


def call(shards: Path, cache: Path, rank: int = 0, world_size: int = 1) -> str:
    """What a process that needs the codes evaluates."""
    options = f"flip=True, device='cpu', rank={rank}, world_size={world_size}"
    return f"cached_codes(open_shards({str(shards)!r}), codec, Path({str(cache)!r}), {options})"


def cached(shards: Path, codec: object, cache: Path, flip: bool = True) -> Path:
    images = open_shards(str(shards))
    return cached_codes(images, codec, cache, flip=flip, device="cpu", rank=0, world_size=1)


def test_other_codecs_flips_and_images_have_others(
    image_shards, tmp_path, codec, other_codec
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


@pytest.mark.parametrize("caches", [["cache", "cache", "cache"], ["node0", "node1"]])
def test_ranks_share_a_cache_or_fill_their_nodes(children, image_shards, tmp_path, caches) -> None:
    for rank, cache in enumerate(caches):
        children.start(call(image_shards, tmp_path / cache, rank, len(caches)), seconds=0.05)
    for cache, folder in zip(caches, map(Path, children.wait()), strict=True):
        assert folder.parent == tmp_path / cache
        Manifest.read(folder).verify(folder)
    if len({*caches}) > 1:
        assert children.encoded() == len(caches) * 2 * 40


@pytest.fixture
def public(image_shards: Path, children) -> Iterator[Path]:
    """A folder that every user can read, with the image shards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(image_shards, folder / "images")
        (folder / "logs").mkdir()
        (folder / "logs").chmod(0o777)
        children.log = folder / "logs" / "log"
        (folder / "cache").mkdir()
        yield folder
        for path in [folder / "cache", *(folder / "cache").rglob("*")]:
            path.chmod(0o755)


@pytest.mark.parametrize("complete", [True, False])
def test_a_read_only_cache_is_used_where_it_is_complete(public, children, codec, complete) -> None:
    if complete:
        folder = cached(public / "images", codec, public / "cache")
        (folder / ".unfinished" / "recipe").mkdir(parents=True)  # left by a process that was killed
    for path in [*(public / "cache").rglob("*"), public / "cache"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    children.start(call(public / "images", public / "cache"), before=NOBODY)
    (message,) = children.wait()
    if complete:
        assert message == str(folder)
        assert not children.log.exists()
    else:
        assert message.startswith(f"InputError: The cache {public / 'cache'}")
        assert "cannot be written" in message
        assert "lit-mbldm encode" in message
