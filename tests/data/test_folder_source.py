import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.errors import InputError

HEIF = """
from PIL import Image, ImageFile

class Fake(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        self._mode, self._size, self.tile = "RGB", (64, 64), []
    def load(self):
        self.im = Image.new("RGB", self.size).im

def register_heif_opener():
    Image.register_open("HEIF", Fake, lambda prefix: prefix[4:12] == b"ftypheic")
"""


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(path)
    return path


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    for name, target in {"one": "../elsewhere", "two": "../elsewhere", "up": "."}.items():
        (photos / name).symlink_to(target)
    assert [raw.name for raw in open_source(photos)] == ["a.png", "one/b.png"]


def test_a_link_that_leads_nowhere_is_skipped_counted_and_named(tmp_path, capsys) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.png")
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(photos / "pipe.jpg")
    main(["shards", str(photos), str(tmp_path / "out"), "--size", "64", "--max-skipped", "0.8"])
    names = [skip["name"] for skip in Manifest.read(tmp_path / "out").skipped]
    assert names == ["gone.jpg", "loop.jpg", "pipe.jpg"]
    assert "loop.jpg: cannot be read (Too many levels" in capsys.readouterr().err


def test_ignored_endings_are_listed_and_heic_is_named_with_its_remedy(tmp_path, capsys) -> None:
    for name in ("1.HEIC", "2.heic", "notes.txt", ".DS_Store", "README"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    told = r"Ignored files: 2 \.heic.* 1 \.txt.*`pip install pillow-heif` reads HEIF"
    with pytest.raises(InputError, match=told):
        open_source(tmp_path / "photos")
    save(tmp_path / "photos" / "a.png")
    main(["shards", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "64"])
    assert "2 .heic" in capsys.readouterr().err


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pillow_heif.py").write_text(HEIF)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    command = [sys.executable, "-m", "lit_mbldm", "shards", "photos", "out", "--size", "64"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=60)
    assert Manifest.read(tmp_path / "out").count == 1
