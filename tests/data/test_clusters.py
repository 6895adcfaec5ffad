from pathlib import Path

import numpy as np
import pytest
from batches import read_all
from PIL import Image

from lit_mbldm.cli import main
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError

COUNT, SIZE = 20, 32


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Noise at even numbers, gradients at odd ones, of any brightness; three quarters to train."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        image = rng.uniform(20, 120) + rng.uniform(0, 120, (SIZE, SIZE, 3))
        if number % 2:
            image[:] = rng.uniform(20, 120) + np.linspace(0, 120, SIZE)[:, None]
        pixels = Image.fromarray(image.astype(np.uint8))
        pixels.save(tmp_path / "photos" / f"{number:02d}.png")
    write_shards(tmp_path / "photos", tmp_path / "shards", SIZE, val=0.25, shard_size=6, workers=1)
    return tmp_path / "shards"


@pytest.mark.parametrize("codec", ["jpq-48", "opq-32-8-8", "jpq-48+decoder"])
def test_two_kinds_of_images_are_two_clusters(shards, tmp_path, codec, contents, capsys) -> None:
    for out in ("a", "b"):
        arguments = ["--codec", codec, "--clusters", "2", "--workers", "1"]
        main(["encode", str(shards), str(tmp_path / out), *arguments])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first: dict[int, int | None] = {}
    for part in ("", "val"):
        folder = tmp_path / "a" / part
        assert Manifest.read(folder).classes == ["cluster 0", "cluster 1"]
        kinds, images = read_all(folder)[0], read_all(shards / part)[0]
        assert [sample.key for sample in kinds] == [image.key for image in images]
        for sample, image in zip(kinds, images, strict=True):
            noise = len(image.data) > 1500  # bytes of a JPEG
            assert first.setdefault(noise, sample.label) == sample.label
    assert sorted(first.values()) == [0, 1]
    capsys.readouterr()
    main(["encode", str(shards), str(tmp_path / "a"), *arguments])
    assert "cluster" not in capsys.readouterr().err  # nothing is left to do


def test_what_cannot_be_clustered(shards, tmp_path) -> None:
    codec = load_codec("opq-32-8-8")
    with pytest.raises(InputError, match="clusters of at least 2, got 1"):
        encode_shards(shards, tmp_path / "out", codec, clusters=1)
    with pytest.raises(InputError, match=r"at least 100 images.* got 1\d"):
        encode_shards(shards, tmp_path / "out", codec, clusters=100)
    clustered = encode_shards(shards, tmp_path / "two", codec, clusters=2)
    assert clustered.count == Manifest.read(shards).count
    with pytest.raises(InputError, match="other settings"):
        encode_shards(shards, tmp_path / "two", codec, clusters=3)
    for name in ("a", "b"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "classes" / name / "x.png")
    write_shards(tmp_path / "classes", tmp_path / "labelled", SIZE, workers=1)
    with pytest.raises(InputError, match=r"labelled has labels.*--no-labels"):
        encode_shards(tmp_path / "labelled", tmp_path / "out", codec, clusters=2)
