import io
import json
import random
import re
import shutil
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lit_mbldm.data
from lit_mbldm.cli import main
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.images import ImageError, load_rgb, to_array
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError

SIZE = 16
CHANGED = ["images-000001.tar", "images-000002.tar"]
FILE_LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def test_variant_1_holds_the_codes_of_the_flipped_image(image_shards, code_shards, codec) -> None:
    images = members(image_shards / "images-000002.tar")
    codes = members(code_shards / "codes-000002.tar")
    assert list(codes) == ["__codec__", *(name.replace(".jpg", ".npy") for name in images)]
    for name, jpeg in images.items():
        pixels = torch.from_numpy(to_array(load_rgb(jpeg)).copy())[None]
        variants = np.load(io.BytesIO(codes[name.replace(".jpg", ".npy")]), allow_pickle=False)
        assert variants.dtype == np.uint8
        assert variants.shape == (2, 1, 2, 2)
        assert np.array_equal(variants[:1], codec.encode(pixels))
        assert np.array_equal(variants[1:], codec.encode(pixels.flip(-1)))


def test_shards_and_manifest_name_the_codec(code_shards, codec) -> None:
    manifest = Manifest.read(code_shards)
    manifest.verify(code_shards)
    assert (manifest.kind, manifest.count) == ("codes", 40)
    assert (manifest.fingerprint, manifest.shape) == (codec.fingerprint, [1, 2, 2])
    tag = json.loads(members(code_shards / "codes-000000.tar")["__codec__"])
    assert tag == {
        "format": 1,
        "fingerprint": codec.fingerprint,
        "shape": [1, 2, 2],
        "variants": 2,
    }


def test_codes_do_not_depend_on_the_batch_size(image_shards, tmp_path, codec) -> None:
    one = encode_shards(image_shards, tmp_path / "a", codec, flip=False, batch_size=1)
    many = encode_shards(image_shards, tmp_path / "b", codec, flip=False, batch_size=7, workers=3)
    assert one == many
    assert one.variants == 1


def test_sizes_that_do_not_fit_are_refused(make_photos, tmp_path, codec) -> None:
    write_shards(make_photos(3), tmp_path / "images", 20, workers=1)
    with pytest.raises(InputError, match="multiples of 8"):
        encode_shards(tmp_path / "images", tmp_path / "codes", codec)
    with pytest.raises(InputError, match="multiples of 8"):
        encode_shards(str(tmp_path / "images" / "*.tar"), tmp_path / "codes", codec)


def test_codes_are_not_encoded_again(code_shards, tmp_path, codec) -> None:
    with pytest.raises(InputError, match="image shards"):
        encode_shards(code_shards, tmp_path / "again", codec)
    assert not (tmp_path / "again").exists()


def damage(shard: Path, count: int = 1) -> None:
    """Overwrite the first images of a shard."""
    with tarfile.open(shard) as archive:
        starts = [member.offset_data for member in archive][:count]
    data = bytearray(shard.read_bytes())
    for start in starts:
        data[start : start + 188] = bytes(188)
    shard.write_bytes(data)


def test_a_corrupt_image_fails_at_the_end_past_the_threshold(image_shards, tmp_path, codec) -> None:
    (image_shards / "manifest.json").unlink()
    damage(image_shards / "images-000001.tar")
    with pytest.raises(InputError, match=r"1 of 40.*\n.*00000010"):
        encode_shards(image_shards, tmp_path / "codes", codec)
    assert Manifest.read(tmp_path / "codes").count == 39
    with pytest.raises(InputError, match="1 of 40"):
        encode_shards(image_shards, tmp_path / "codes", codec)
    tolerant = encode_shards(image_shards, tmp_path / "more", codec, max_skipped=0.03)
    assert [entry.count for entry in tolerant.shards] == [10, 9, 10, 10]
    assert "00000010" in tolerant.skipped[0]["name"]


def test_a_truncated_shard_keeps_its_beginning(image_shards, tmp_path, codec) -> None:
    shard = image_shards / "images-000003.tar"
    with tarfile.open(shard) as archive:
        cut = archive.getmembers()[4].offset_data + 100
    shard.write_bytes(shard.read_bytes()[:cut])
    (image_shards / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=r"images-000003\.tar: .*its samples up to there are used"):
        manifest = encode_shards(image_shards, tmp_path / "codes", codec, max_skipped=0.25)
    assert [entry.count for entry in manifest.shards] == [10, 10, 10, 4]
    (skipped,) = manifest.skipped
    assert skipped["name"] == "images-000003.tar"


def change_unseen(shard: Path) -> None:
    """Flip a bit of the second image, so that it shows others than its pixels."""
    with tarfile.open(shard) as archive:
        member = archive.getmembers()[1]
    begin, end = member.offset_data, member.offset_data + member.size
    data = bytearray(shard.read_bytes())
    good = to_array(load_rgb(bytes(data[begin:end])))
    for position in range(begin + 20, end):
        data[position] ^= 1
        with suppress(ImageError):
            if not np.array_equal(to_array(load_rgb(bytes(data[begin:end]))), good):
                shard.write_bytes(data)
                return
        data[position] ^= 1
    raise AssertionError


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


def test_the_end_of_a_shard_is_compared_too(image_shards, tmp_path, codec) -> None:
    shard = image_shards / "images-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"images-000000.tar differs from the sha256"):
        encode_shards(image_shards, tmp_path / "codes", codec)


def call(shards: Path, out: Path, rank: int = 0, world_size: int = 1) -> str:
    """What a process is to evaluate."""
    place = f"rank={rank}, world_size={world_size}"
    return f"encode_shards({str(shards)!r}, {str(out)!r}, codec, batch_size=2, {place}).count"


@pytest.mark.parametrize(("ranks", "world_size"), [([0, 1, 2], 3), ([0, 0, 0], 1), ([0], 4)])
def test_processes_share_the_shards_out_and_do_those_of_one_that_is_missing(
    children, image_shards, code_shards, tmp_path, contents, ranks, world_size
) -> None:
    for rank in ranks:
        children.start(call(image_shards, tmp_path / "out", rank, world_size), seconds=0.1)
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


def test_shards_that_are_still_being_written_are_told(children, image_shards, tmp_path) -> None:
    doomed = children.start(call(image_shards, tmp_path / "out"), seconds=60)
    while not children.log.exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match="still being written"):
        open_shards(tmp_path / "out")
    doomed.kill()
    doomed.join()
    with pytest.raises(InputError, match="begun with another codec and flip"):
        encode_shards(image_shards, tmp_path / "out", Unused("f" * 64), flip=False)


def test_a_full_disk_loses_nothing(
    make_photos, children, tmp_path, codec, contents, written
) -> None:
    images, out = tmp_path / "images", tmp_path / "codes"
    write_shards(make_photos(34), images, SIZE, shard_size=30, workers=1)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_480, 20_480))"
    children.start(call(images, out, 1, 2), before=limit)
    (message,) = children.wait()
    assert "codes-000000.tar" in message
    assert "run the same command again" in message
    small = written(out)
    assert [*small] == ["codes-000001.tar"]
    children.start(call(images, out))
    assert children.wait()[1] == "34"
    assert small.items() <= written(out).items()
    encode_shards(images, tmp_path / "whole", codec)
    assert contents(out) == contents(tmp_path / "whole")


class Unused:
    """A codec that must not be asked for codes."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 1, height // 8, width // 8

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError


def test_a_finished_folder_is_left_as_it_is(image_shards, code_shards, codec) -> None:
    before = {path: path.stat().st_mtime_ns for path in code_shards.rglob("*")}
    manifest = encode_shards(image_shards, code_shards, Unused(codec.fingerprint), batch_size=3)
    assert manifest == Manifest.read(code_shards)
    assert {path: path.stat().st_mtime_ns for path in code_shards.rglob("*")} == before


def test_a_folder_of_other_codes_is_refused(image_shards, code_shards, codec, other_codec) -> None:
    with pytest.raises(InputError, match="already holds shards"):
        encode_shards(image_shards, code_shards, other_codec)
    with pytest.raises(InputError, match="already holds shards"):
        encode_shards(image_shards, code_shards, codec, flip=False)


@pytest.mark.parametrize("workers", [1, 3])
def test_shards_of_a_url_that_are_missing_are_named_and_the_next_run_goes_on(
    image_shards, code_shards, tmp_path, codec, written, workers
) -> None:
    url, out, gone = f"file://{image_shards}", tmp_path / "again", tmp_path / "gone"
    gone.mkdir()
    for name in CHANGED:
        shutil.move(image_shards / name, gone)
    with pytest.raises(InputError, match="run the same command again") as error:
        encode_shards(url, out, codec, workers=workers)
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
    local = encode_shards(image_shards, out, Unused(codec.fingerprint))
    assert local == Manifest.read(out)


def test_names_of_members_may_be_long_but_lead_nowhere(tmp_path, codec) -> None:
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


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", "some"])
def test_a_share_of_bad_images_lies_between_0_and_1(tmp_path, capsys, share) -> None:
    with pytest.raises(SystemExit):
        main(["encode", "in", str(tmp_path / "out"), "--codec", "c", f"--max-skipped={share}"])
    assert "from 0 to 1" in capsys.readouterr().err


def test_shards_of_several_sizes_are_refused(make_photos, tmp_path, codec) -> None:
    photos = make_photos(4)
    for size in (16, 24):
        write_shards(photos, tmp_path / str(size), size, workers=1)
    both = [str(tmp_path / "16"), str(tmp_path / "24")]
    with pytest.raises(InputError, match=r"one size, 16×16.*24×24"):
        encode_shards(both, tmp_path / "codes", codec, workers=1)


def test_nothing_usable_fails_each_time(make_photos, tmp_path, codec) -> None:
    write_shards(make_photos(3), tmp_path / "images", SIZE, workers=1)
    damage(tmp_path / "images" / "images-000000.tar", 3)
    (tmp_path / "images" / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(InputError, match="3 of 3 could not be used"):
            encode_shards(tmp_path / "images", tmp_path / "codes", codec)


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"workers": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}]
)
def test_bad_arguments_are_refused(bad, image_shards, tmp_path, codec) -> None:
    with pytest.raises(InputError):
        encode_shards(image_shards, tmp_path / "codes", codec, **bad)
    assert not (tmp_path / "codes").exists()


@pytest.fixture
def photo_shards(tmp_path: Path) -> Path:
    """Crops of 96×96 of real photographs, 8 in each of 4 shards."""
    (tmp_path / "crops").mkdir()
    photos = sorted((Path(lit_mbldm.data.__path__[0]) / "photos").glob("*.jpg"))
    for number, path in enumerate(photos):
        with Image.open(path) as photo:
            for k in range(8):
                crop = photo.crop((k * 40, k * 20, k * 40 + 96, k * 20 + 96))
                crop.save(tmp_path / "crops" / f"{number}{k}.png")
    write_shards(tmp_path / "crops", tmp_path / "photo-shards", 96, shard_size=8, workers=1)
    return tmp_path / "photo-shards"


def test_bytes_of_real_codes_do_not_depend_on_threads_and_precision(
    photo_shards: Path, tmp_path: Path, contents
) -> None:
    codec = load_codec("opq-32-8-8")
    one = encode_shards(photo_shards, tmp_path / "one", codec, workers=1)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.set_num_threads(4)
        options = {"workers": 2, "batch_size": 3}
        assert encode_shards(photo_shards, tmp_path / "two", codec, **options) == one
        assert torch.get_num_threads() == 4
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
