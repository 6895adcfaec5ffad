import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_mbldm.data.encode import encode_shards
from lit_mbldm.data.images import load_rgb, to_array
from lit_mbldm.data.manifest import Manifest
from lit_mbldm.data.shards import write_shards
from lit_mbldm.errors import InputError


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
    many = encode_shards(image_shards, tmp_path / "b", codec, flip=False, batch_size=7)
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


def damage(shard: Path) -> None:
    """Overwrite the first image of a shard."""
    data = bytearray(shard.read_bytes())
    data[512:700] = bytes(188)
    shard.write_bytes(data)


def test_a_corrupt_image_fails_at_the_end_past_the_threshold(image_shards, tmp_path, codec) -> None:
    damage(image_shards / "images-000001.tar")
    with pytest.raises(InputError, match=r"1 of 40.*\n.*00000010"):
        encode_shards(image_shards, tmp_path / "codes", codec)
    assert Manifest.read(tmp_path / "codes").count == 39
    tolerant = encode_shards(image_shards, tmp_path / "more", codec, max_skipped=0.03)
    assert [entry.count for entry in tolerant.shards] == [10, 9, 10, 10]
    assert "00000010" in tolerant.skipped[0]["name"]


def test_a_truncated_shard_keeps_its_beginning(image_shards, tmp_path, codec) -> None:
    shard = image_shards / "images-000003.tar"
    shard.write_bytes(shard.read_bytes()[: 5 * 512 + 100])
    manifest = encode_shards(image_shards, tmp_path / "codes", codec, max_skipped=0.25)
    assert 31 <= manifest.count < 40
    assert any("images-000003.tar" in entry["name"] for entry in manifest.skipped)
