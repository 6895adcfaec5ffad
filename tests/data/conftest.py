import hashlib
import multiprocessing
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.errors import InputError

SIZE = 16
sys.path.append(str(Path(__file__).parent))  # for the helpers beside this file


class MeanCodec(nn.Module):
    """A codec for tests: one code a patch, the mean of its red pixels."""

    def __init__(self, salt: str = "") -> None:
        super().__init__()
        self.fingerprint = hashlib.sha256(f"mean{salt}".encode()).hexdigest()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        if height % 8 or width % 8:
            raise InputError(f"Expected multiples of 8, got {height}×{width}.")
        return 1, height // 8, width // 8

    def encode(self, images: Tensor) -> Tensor:
        self.latent_shape(images.shape[2], images.shape[3])
        return torch.nn.functional.avg_pool2d(images[:, :1].float(), 8).round().to(torch.uint8)


class NotingCodec(MeanCodec):
    """Gives the codes slowly, and notes the size of each batch in a file."""

    def __init__(self, log: str, seconds: float) -> None:
        super().__init__()
        self.log = log
        self.seconds = seconds

    def encode(self, images: Tensor) -> Tensor:
        with open(self.log, "a") as log:
            log.write(f"{len(images)}\n")
        time.sleep(self.seconds)
        return super().encode(images)


@pytest.fixture
def codec() -> MeanCodec:
    return MeanCodec()


@pytest.fixture
def other_codec() -> MeanCodec:
    return MeanCodec("other")


def picture(index: int, size: int = SIZE) -> Image.Image:
    """Left half of brightness `index`, right half of 255 - `index`: tells itself and a flip."""
    pixels = np.full((size, size, 3), index, dtype=np.uint8)
    pixels[:, size // 2 :] = 255 - index
    return Image.fromarray(pixels)


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    def make(count: int, bad: int = 0, folder: str = "photos") -> Path:
        out = tmp_path / folder
        out.mkdir()
        for index in range(count):
            path = out / f"{index:03d}.png"
            if index < bad:
                path.write_bytes(b"no image")
            else:
                picture(index).save(path)
        return out

    return make


@pytest.fixture
def image_shards(make_photos: Callable[..., Path], tmp_path: Path) -> Path:
    """40 images in 4 shards."""
    out = tmp_path / "images"
    write_shards(make_photos(40), out, SIZE, shard_size=10, workers=1)
    return out


@pytest.fixture
def code_shards(image_shards: Path, tmp_path: Path, codec: MeanCodec) -> Path:
    """The codes of the 40 images."""
    out = tmp_path / "codes"
    encode_shards(image_shards, out, codec)
    return out


@pytest.fixture
def damage() -> Callable[..., None]:
    """Overwrite the first images of a shard, without a manifest beside it that tells."""

    def overwrite(shard: Path, count: int = 1) -> None:
        data = bytearray(shard.read_bytes())
        with tarfile.open(shard) as archive:
            for member in archive.getmembers()[:count]:
                data[member.offset_data : member.offset_data + 188] = bytes(188)
        shard.write_bytes(data)
        (shard.parent / "manifest.json").unlink()

    return overwrite


@pytest.fixture
def members() -> Callable[[Path], dict[str, bytes]]:
    """The files of a tar."""

    def read(shard: Path) -> dict[str, bytes]:
        with tarfile.open(shard) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]

    return read


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder, hidden ones too."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def written() -> Callable[[Path], dict[str, int]]:
    """The finished shards of a folder, itself finished or not, with the times they were written."""
    return lambda folder: {
        path.name: path.stat().st_mtime_ns
        for path in [*folder.glob("*.tar"), *folder.glob(".unfinished/*.tar/*.tar")]
    }


# what a process that encodes runs
CHILD = """
import os, runpy
from pathlib import Path
from lit_mbldm.data.prepare.encode import cached_codes, encode_shards
from lit_mbldm.data.shards.locate import open_shards

codec = runpy.run_path({conftest!r})["NotingCodec"]({log!r}, {seconds})
{before}
try:
    text = str({call})
except Exception as error:
    text = f"{{type(error).__name__}}: {{error}}"
Path({log!r} + ".{number}").write_text(text)
"""


class Children:
    """Processes that encode with a codec that notes what it is given."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.started: list[BaseProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        preload = ["lit_mbldm.data.prepare.encode", "lit_mbldm.data.prepare.write_shards", "pytest"]
        self._context.set_forkserver_preload(preload)

    def start(self, call: str, seconds: float = 0.01, before: str = "") -> BaseProcess:
        """Start a process that evaluates a call with `codec`, slow by so many seconds a batch."""
        names = {"conftest": __file__, "log": str(self.log), "number": len(self.started)}
        code = CHILD.format(**names, seconds=seconds, before=before, call=call)
        self.started.append(self._context.Process(target=exec, args=(code, {})))
        self.started[-1].start()
        return self.started[-1]

    def wait(self) -> list[str]:
        """What the calls gave, or the errors, in the order they were started."""
        for process in self.started:
            process.join(60)
        logs = (Path(f"{self.log}.{number}") for number in range(len(self.started)))
        return [log.read_text() if log.exists() else "killed" for log in logs]

    def encoded(self) -> int:
        """Images encoded by all of them, with the flipped ones."""
        return sum(int(line) for line in self.log.read_text().split())


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    started = Children(tmp_path / "log")
    yield started
    for process in started.started:
        process.kill()
        process.join()
