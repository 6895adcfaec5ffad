"""How fast images become shards, codes and batches, and the memory and disk it takes.

python benchmarks/data.py [--data FOLDER_OR_TARS]
"""

import argparse
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from tqdm import tqdm

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.read_images import read_images
from lit_mbldm.images import fit_square, load_rgb, to_array
from lit_mbldm.zoo import load_pretrained

SOURCE_SIDE, SIDE, BATCH = 256, 512, 64
ROUNDS = 3
MEMORY_CODE = "from lit_mbldm.cli import main; main()"
# A small process starts what is measured: a child's peak begins with its parent's size.
LAUNCH_CODE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
STREAM_CODE = """
import sys
from lit_mbldm.data.loading.datamodule import ShardDataModule
module = ShardDataModule(sys.argv[1], num_workers=1)
module.setup("fit")
print(sum(len(batch["index"]) for batch in module.train_dataloader()))
"""


def write_source(images: Iterable[Image.Image], folder: Path, count: int, side: int) -> None:
    """Write `count` JPEGs of different content, the shorter side as long as LSUN's."""
    folder.mkdir()
    pictures = list(images)
    for number in tqdm(range(count), desc="source", unit="image"):
        picture = pictures[number % len(pictures)]
        shift = (number // len(pictures)) * 7 % max(min(picture.size) - side, 1)
        longest = min(picture.width, side * 4 // 3)
        crop = picture.crop((shift, shift, shift + longest, shift + side))
        crop.save(folder / f"{number:06d}.jpg", quality=90)


def pillow_loop(source: Path) -> int:
    """What anybody would write: decode, crop, resize, encode, one after another."""
    count = 0
    for path in sorted(source.iterdir()):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        stream = io.BytesIO()
        square.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(
            stream, "JPEG", quality=95, subsampling=0
        )
        count += 1
    return count


def shards_rates(source: Path, work: Path) -> dict[str, float]:
    """Images a second, each in turn, the best of some rounds: others disturb, nothing speeds up."""

    def with_workers(workers: int) -> Callable[[], int]:
        def run() -> int:
            out = work / "timed"
            shutil.rmtree(out, ignore_errors=True)
            return write_shards(source, out, SIDE, workers=workers).count

        return run

    tasks = {
        "Pillow loop": lambda: pillow_loop(source),
        "shards, 1 worker": with_workers(1),
        "shards, 2 workers": with_workers(2),
    }
    rates = dict.fromkeys(tasks, 0.0)
    for _ in range(ROUNDS):
        for name, task in tasks.items():
            start = time.perf_counter()
            count = task()
            rates[name] = max(rates[name], count / (time.perf_counter() - start))
    return rates


def encode_rates(images: Path, work: Path) -> dict[str, float]:
    """Images and their mirror images a second to codes."""
    codec = load_pretrained("opq-32-8-8")
    rates = {}
    for workers in (1, 2):
        start = time.perf_counter()
        manifest = encode_shards(str(images), work / f"codes{workers}", codec, workers=workers)
        assert manifest is not None
        rates[f"encode, {workers} workers"] = manifest.count / (time.perf_counter() - start)
    return rates


def passes(module: ShardDataModule) -> Iterator[int]:
    """Endless numbers of samples, a batch each."""
    loader = module.train_dataloader()
    while True:
        for batch in loader:
            yield len(batch["index"])


def plain_webdataset(shards: list[str], workers: int) -> Iterator[int]:
    """A plain pipeline over JPEG shards: shuffle, decode to tensors, batch."""
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=100, empty_check=False)
        .shuffle(1000)
        .to_tuple("jpg")
        .map_tuple(lambda data: torch.from_numpy(to_array(load_rgb(data)).copy()))
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=workers)
    while True:
        for (images,) in loader:
            yield len(images)


def rate(batches: Iterator[int], seconds: float = 6.0) -> float:
    """Images a second once it runs."""
    for _ in range(5):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += next(batches)
    return count / (time.perf_counter() - start)


def loader_rates(images: Path, codes: Path) -> dict[str, float]:
    """Images a second of each way to batches, one after another."""

    def ours(**options: object) -> Iterator[int]:
        repeated = [str(codes)] * 20  # long epochs: no start of workers in the figure
        module = ShardDataModule(repeated, batch_size=BATCH, **options)  # type: ignore[arg-type]
        module.setup("fit")
        return passes(module)

    jpegs = [str(path) for path in sorted(images.glob("*.tar"))] * 20
    return {
        "WebDataset over JPEG shards, 2 workers": rate(plain_webdataset(jpegs, 2)),
        "code shards, no worker": rate(ours()),
        "code shards, 2 workers": rate(ours(num_workers=2)),
        "code shards, in_memory": rate(ours(in_memory=True)),
    }


def bytes_an_image(shards: Path) -> float:
    """Of a folder of shards."""
    manifest = Manifest.read(shards)
    return sum(shard.bytes for shard in manifest.shards) / manifest.count


def peak_megabytes(code: str, *arguments: object) -> float:
    """Largest resident set of a child process and of its own children."""
    measured = [sys.executable, "-c", code, *map(str, arguments)]
    command = [sys.executable, "-c", LAUNCH_CODE, *measured]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ran.stdout) / 1024


def memory(work: Path, counts: tuple[int, int]) -> list[tuple[str, list[float]]]:
    """Peak memory of each command at two sizes of the data set."""
    rows: dict[str, list[float]] = {"shards": [], "encode": [], "streaming, 1 worker": []}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for count in counts:
        source, images, codes = (work / f"{name}{count}" for name in ("source", "images", "codes"))
        write_source([Image.fromarray(noise)], source, count, 64)
        rows["shards"].append(peak_megabytes(MEMORY_CODE, "shards", source, images, "--size", 64))
        rows["encode"].append(
            peak_megabytes(MEMORY_CODE, "encode", images, codes, "--codec", "opq-32-8-8")
        )
        rows["streaming, 1 worker"].append(peak_megabytes(STREAM_CODE, codes))
    return list(rows.items())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="images to use (default: the photographs that ship)")
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos = Path(__file__).parents[1] / "lit_mbldm" / "data" / "photos"
    found = read_images(options.data or photos, options.images)
    pictures = [
        fit_square(image, SOURCE_SIDE) if min(image.size) < 2 * SOURCE_SIDE else image
        for image in found.values()
    ]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_source(pictures, work / "source", options.images, SOURCE_SIDE)
        made = shards_rates(work / "source", work)
        images = work / "timed"
        encoded = encode_rates(images, work)
        loaded = loader_rates(images, work / "codes1")
        sizes = {name: bytes_an_image(folder) for name, folder in
                 {"image shards": images, "code shards": work / "codes1"}.items()}  # fmt: skip
        peaks = memory(work, (1000, 10000))
    print_rates(f"Images a second, {SOURCE_SIDE} px to {SIDE} px shards", made, "Pillow loop")
    print_rates(f"Images a second, {SIDE} px shards to codes", encoded, next(iter(encoded)))
    print_rates(f"Images a second, codes of {SIDE}×{SIDE} images", loaded, next(iter(loaded)))
    print(f"Bytes an image, {SIDE} px")
    for row, size in sizes.items():
        print(f"  {row:42s}{size:10.0f}")
    print("Peak memory in MB at 1,000 and 10,000 images")
    for row, (small, large) in peaks:
        print(f"  {row:42s}{small:8.0f}{large:8.0f}{large / small:8.2f}×")


def print_rates(title: str, rates: dict[str, float], base: str) -> None:
    """One line a rate, with its ratio to the base."""
    print(title)
    for name, value in rates.items():
        print(f"  {name:42s}{value:10.1f}{value / rates[base]:8.2f}×")
    for slower, faster in itertools.pairwise(rates):
        print(f"    {faster} / {slower}: {rates[faster] / rates[slower]:.2f}")


if __name__ == "__main__":
    main()
