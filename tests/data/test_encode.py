import io
import json
import random
import re
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lit_mbldm.data
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError
from lit_mbldm.images import load_rgb, to_array

SIZE = 16
CHANGED = ["images-000001.tar", "images-000002.tar"]


def test_code_shards_hold_the_codes_of_each_image_and_its_flip_and_name_the_codec(
    image_shards, code_shards, codec, members
) -> None:
    manifest = Manifest.read(code_shards)
    manifest.verify(code_shards)
    assert (manifest.kind, manifest.count, manifest.shape) == ("codes", 40, [1, 2, 2])
    images = members(image_shards / "images-000002.tar")
    codes = members(code_shards / "codes-000002.tar")
    assert list(codes) == ["__codec__", *(name.replace(".jpg", ".npy") for name in images)]
    tag = {"format": 1, "fingerprint": codec.fingerprint, "shape": [1, 2, 2], "variants": 2}
    assert json.loads(codes["__codec__"]) == tag
    for name, jpeg in images.items():
        pixels = torch.from_numpy(to_array(load_rgb(jpeg)).copy())[None]
        variants = np.load(io.BytesIO(codes[name.replace(".jpg", ".npy")]), allow_pickle=False)
        assert variants.dtype == np.uint8
        assert variants.shape == (2, 1, 2, 2)
        assert np.array_equal(variants[:1], codec.encode(pixels))
        assert np.array_equal(variants[1:], codec.encode(pixels.flip(-1)))


def test_what_cannot_be_encoded(make_photos, code_shards, tmp_path, codec, other_codec) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for size in (16, 20, 24):
        write_shards(photos, tmp_path / str(size), size, workers=1)
    for shards in (tmp_path / "20", str(tmp_path / "20" / "*.tar")):
        with pytest.raises(InputError, match="multiples of 8"):
            encode_shards(shards, out, codec)
    with pytest.raises(InputError, match=r"one size, 16×16.*24×24"):
        encode_shards([str(tmp_path / "16"), str(tmp_path / "24")], tmp_path / "both", codec)
    with pytest.raises(InputError, match="image shards"):
        encode_shards(code_shards, tmp_path / "again", codec)
    assert not (tmp_path / "again").exists()
    for arguments in ({"codec": other_codec}, {"codec": codec, "flip": False}):
        with pytest.raises(InputError, match="already holds shards"):
            encode_shards(tmp_path / "images", code_shards, **arguments)


def test_damaged_images_are_skipped_and_fail_at_the_end_past_the_threshold(
    image_shards, tmp_path, codec, damage
) -> None:
    damage(image_shards / "images-000001.tar")
    cut = image_shards / "images-000003.tar"
    with tarfile.open(cut) as archive:
        end = archive.getmembers()[4].offset_data + 100
    cut.write_bytes(cut.read_bytes()[:end])
    warned = pytest.warns(UserWarning, match=rf"{cut.name}: .*its samples up to there are used")
    for _ in range(2):
        with warned, pytest.raises(InputError, match=r"2 of 35.*\n.*00000010"):
            encode_shards(image_shards, tmp_path / "codes", codec)
        assert Manifest.read(tmp_path / "codes").count == 33
    with warned:
        tolerant = encode_shards(image_shards, tmp_path / "more", codec, max_skipped=0.06)
    assert [entry.count for entry in tolerant.shards] == [10, 9, 10, 4]
    assert [skip["name"] for skip in tolerant.skipped] == ["images-000001.tar/00000010", cut.name]


def test_nothing_usable_fails_each_time(make_photos, tmp_path, codec, damage) -> None:
    write_shards(make_photos(3), tmp_path / "images", SIZE, workers=1)
    damage(tmp_path / "images" / "images-000000.tar", 3)
    for _ in range(2):
        with pytest.raises(InputError, match="3 of 3 could not be used"):
            encode_shards(tmp_path / "images", tmp_path / "codes", codec)


def change_unseen(shard: Path) -> None:
    """Change the density that a JPEG's header tells, which no reader of pixels sees."""
    with tarfile.open(shard) as archive:
        begin = archive.getmembers()[1].offset_data
    data = bytearray(shard.read_bytes())
    data[begin + 15] ^= 1
    shard.write_bytes(data)


def test_shards_that_differ_from_their_manifest_are_not_encoded_in_silence(
    image_shards, code_shards, tmp_path, codec, contents, written
) -> None:
    kept = {name: (image_shards / name).read_bytes() for name in CHANGED}
    for name in CHANGED:
        change_unseen(image_shards / name)
    with pytest.raises(InputError, match="differs from the sha256") as error:
        encode_shards(image_shards, tmp_path / "again", codec, workers=1)
    for words in (*CHANGED, "write it again", "remove the manifest", "run the same command again"):
        assert words in str(error.value)
    assert sorted(written(tmp_path / "again")) == ["codes-000000.tar", "codes-000003.tar"]
    shutil.copytree(image_shards, tmp_path / "as it is")
    (tmp_path / "as it is" / "manifest.json").unlink()
    assert encode_shards(tmp_path / "as it is", tmp_path / "others", codec).count == 40
    for name, data in kept.items():
        (image_shards / name).write_bytes(data)
    encode_shards(image_shards, tmp_path / "again", codec)
    assert contents(tmp_path / "again") == contents(code_shards)


def call(shards: Path, out: Path, rank: int = 0, world_size: int = 1) -> str:
    """What a process is to evaluate."""
    place = f"rank={rank}, world_size={world_size}"
    return f"encode_shards({str(shards)!r}, {str(out)!r}, codec, batch_size=2, {place}).count"


@pytest.mark.parametrize(("ranks", "world_size"), [([0, 1, 2], 3), ([0, 0, 0], 1), ([0], 4)])
def test_processes_share_the_shards_out_and_do_those_of_one_that_is_missing(
    children, image_shards, code_shards, tmp_path, contents, ranks, world_size
) -> None:
    for rank in ranks:
        one = call(image_shards, tmp_path / "out", rank, world_size).replace(
            "batch_size", "workers=1, batch_size"
        )
        children.start(one, seconds=0.1)
    assert children.wait() == ["40"] * len(ranks)
    if world_size > 1:  # several processes may take what is left at last
        assert 2 * 40 <= children.encoded() < 2 * 2 * 40
    assert contents(tmp_path / "out") == contents(code_shards)


def test_a_run_killed_at_any_moment_is_continued(
    children, image_shards, code_shards, tmp_path, contents, written
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng, out = random.Random(seed), tmp_path / "out"
    finished: dict[str, int] = {}
    for _ in range(6):
        process = children.start(call(image_shards, out), seconds=0.02)
        time.sleep(rng.uniform(0.05, 0.35))
        process.kill()
        process.join()
        assert finished.items() <= written(out).items()
        finished = written(out)
    children.start(call(image_shards, out))
    assert children.wait()[-1] == "40"
    assert finished.items() <= written(out).items()
    assert contents(out) == contents(code_shards)


def test_shards_of_a_url_that_are_missing_are_named_and_the_next_run_goes_on(
    image_shards, code_shards, tmp_path, codec, written
) -> None:
    url, out, gone = f"file://{image_shards}", tmp_path / "again", tmp_path / "gone"
    gone.mkdir()
    for name in CHANGED:
        shutil.move(image_shards / name, gone)
    with pytest.raises(InputError, match="run the same command again") as error:
        encode_shards(url, out, codec, workers=3)
    for name in CHANGED:
        assert re.search(f"{name} .*does not exist", str(error.value))
    done = written(out)
    assert sorted(done) == ["codes-000000.tar", "codes-000003.tar"]
    for name in CHANGED:
        shutil.move(gone / name, image_shards)
    encode_shards(url, out, codec)
    assert done.items() <= written(out).items()
    for shard in code_shards.glob("*.tar"):
        assert (out / shard.name).read_bytes() == shard.read_bytes()
    codec.encode = None
    local = encode_shards(image_shards, out, codec)
    assert local == Manifest.read(out)


def test_names_of_members_may_be_long_but_lead_nowhere(tmp_path, codec, members) -> None:
    png = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE)).save(png, "PNG")
    good = ["a" * 150, "b/" * 90 + "b", "日本"]
    bad = ["../../evil", "/evil", "c/../../evil", "\\evil"]
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for key in good + bad:
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(png.getvalue())
            archive.addfile(member, io.BytesIO(png.getvalue()))
    shards = str(tmp_path / "images.tar")
    manifest = encode_shards(shards, tmp_path / "codes", codec, max_skipped=1.0)
    assert manifest.count == len(good)
    assert len(manifest.skipped) == len(bad)
    assert all("evil" in entry["name"] for entry in manifest.skipped)
    codes = members(tmp_path / "codes" / "codes-000000.tar")
    assert list(codes) == ["__codec__", *(f"{key}.npy" for key in good)]
    assert open_shards(tmp_path / "codes").count == len(good)


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"workers": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}]
)
def test_bad_arguments_are_refused(bad, image_shards, tmp_path, codec) -> None:
    with pytest.raises(InputError):
        encode_shards(image_shards, tmp_path / "codes", codec, **bad)
    assert not (tmp_path / "codes").exists()


def test_bytes_of_real_codes_do_not_depend_on_batches_and_threads(tmp_path, contents) -> None:
    photos, shards = Path(lit_mbldm.data.__path__[0]) / "photos", tmp_path / "shards"
    write_shards(photos, shards, 256, shard_size=2, workers=1)
    codec = load_codec("opq-32-8-8")
    one = encode_shards(shards, tmp_path / "one", codec, workers=1)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.set_num_threads(4)
        assert encode_shards(shards, tmp_path / "two", codec, workers=2, batch_size=1) == one
        assert torch.get_num_threads() == 4
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
