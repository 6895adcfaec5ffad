"""Shards, tags and manifests that are damaged or made to do harm, through every reader."""

import contextlib
import io
import json
import pickle
import random
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.manifest import MANIFEST, Manifest
from lit_mbldm.data.shards.reading import code_variants, dump_codes
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.errors import InputError
from lit_mbldm.images import ImageError

BLOCK = tarfile.BLOCKSIZE
CODES = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """No test goes on for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def header(name: str, size: int = 0, **fields: Any) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def member(name: str, data: bytes, **fields: Any) -> bytes:
    return header(name, len(data), **fields) + data + bytes(-len(data) % BLOCK)


def pax(record: bytes) -> bytes:
    return member("pax", record, type=tarfile.XHDTYPE)


TAG = member("__codec__", json.dumps({"fingerprint": "f", "shape": [1, 2, 2]}).encode())
GOOD = member("a.npy", dump_codes(CODES))
END = bytes(20 * BLOCK)


def hostile(name: str, good: bytes) -> dict[str, bytes]:
    """Members of this name, after or with a good one, that mean harm."""
    return {
        "2^40": header(name, 1 << 40),
        "2^80": header(name, 1 << 80),
        "negative": header(name, -BLOCK),
        "very negative": header(name, -(1 << 62)),
        "negative extension": header(name, -BLOCK, type=tarfile.XHDTYPE),
        "large extension": header(name, 1 << 30, type=tarfile.GNUTYPE_LONGNAME),
        "sparse": member(name, dump_codes(CODES), type=tarfile.GNUTYPE_SPARSE),
        "pax sparse": pax(b"22 GNU.sparse.major=1\n") + member(name, dump_codes(CODES)),
        "pax size": pax(b"28 size=1152921504606846976\n") + good,
        "pax endless": pax(b"0 size=-9\n") + good,
        "pax cut": pax(b"99 path=b\n") + good,
        "zero block": bytes(BLOCK) + good,
    }


def streamed(shards: Path, **options: Any) -> dict[int, Any]:
    """The codes or images of an epoch by their numbers; none where nothing can be read."""
    batches = []
    module = ShardDataModule(
        str(shards), batch_size=1, max_skipped=1.0, horizontal_flip=False, **options
    )
    with contextlib.suppress(InputError):
        module.setup("fit")
        for batch in module.train_dataloader():
            batches.append(batch)
    return {int(b["index"][0]): (b["codes"] if "codes" in b else b["images"])[0] for b in batches}


@pytest.mark.filterwarnings("ignore:.*(Skipped|Left out|up to there)")
@pytest.mark.parametrize("kind", hostile("", b""))
def test_hostile_members_end_a_shard_and_no_reader_hangs(kind: str, tmp_path: Path, codec) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(TAG + GOOD + hostile("b.npy", GOOD)[kind] + END)
    with pytest.warns(UserWarning, match=r"(truncated|corrupt).* at byte \d+"):
        open_shards(shard)
    for in_memory in (False, True):
        ((index, codes),) = streamed(shard, in_memory=in_memory).items()
        assert index == 0
        assert torch.equal(codes, torch.from_numpy(CODES[0]))
    image = member("a.png", dump_codes(CODES))
    shard.write_bytes(image + hostile("b.png", image)[kind] + END)
    assert len(list(open_source(shard))) in (2, 3)
    with pytest.raises(InputError, match="could not be used"):
        write_shards(shard, tmp_path / "out", 16, workers=1)
    with pytest.raises(InputError, match="could not be used"):
        encode_shards(shard, tmp_path / "codes", codec)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_odd_names_and_other_kinds_of_members_are_read_past(form: int, tmp_path: Path) -> None:
    names = [
        "zz.__x.npy",
        "b.__codec__.npy",
        "ü/./b..npy",
        "x/..npy/c.npy",
        "folder/" * 30 + "ü.npy",
    ]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name, kind, data in [
            ("__codec__", tarfile.REGTYPE, TAG[BLOCK:].rstrip(b"\0")),
            ("folder", tarfile.DIRTYPE, b""),
            *((name, tarfile.REGTYPE, dump_codes(CODES)) for name in names),
            ("link.npy", tarfile.SYMTYPE, b""),
            ("text.txt", tarfile.REGTYPE, bytes(3 * BLOCK + 1)),
            ("old.npy", tarfile.AREGTYPE, dump_codes(CODES)),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    count = open_shards(tmp_path / "a.tar").count
    assert len(streamed(tmp_path / "a.tar")) == count == len(names) + 1


@pytest.mark.parametrize(
    "text",
    [
        b'{"fingerprint": "f", "shape": [1e400, 2, 2]}',
        b'{"fingerprint": "f", "shape": [true, 2, 2]}',
        b'{"fingerprint": "f", "shape": [1, 2, -2]}',
        b'{"fingerprint": "f", "shape": "122"}',
        b'{"fingerprint": 5, "shape": [1, 2, 2]}',
        b'{"fingerprint": "f"}',
        b"[" * 60_000,
        b"1",
        b"\xff",
    ],
)
def test_hostile_tags_make_an_unreadable_shard(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(member("__codec__", text) + GOOD + END)
    with pytest.raises(InputError, match="unreadable __codec__"):
        open_shards(tmp_path / "a.tar")


def test_an_npy_is_read_where_it_is_what_was_written_and_no_pickle_is() -> None:
    good = dump_codes(CODES)
    for position in range(len(good) - CODES.size):
        for bit in range(8):
            data = bytearray(good)
            data[position] ^= 1 << bit
            with contextlib.suppress(ImageError):
                assert np.array_equal(code_variants(bytes(data), (1, 2, 2)), CODES)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for data in (good[:-1], good + b"\0", good[:60], b"", pickle.dumps(1), pickled.getvalue()):
        with pytest.raises(ImageError, match=r"no readable \.npy"):
            code_variants(data, (1, 2, 2))


def test_codes_beyond_the_codec_are_skipped(tmp_path) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(TAG + GOOD + member("b.npy", dump_codes(CODES + 9)) + END)
    module = ShardDataModule(str(shard), batch_size=1, max_skipped=1.0)
    model = SimpleNamespace(codec=SimpleNamespace(codebook_size=16, fingerprint="f"))
    device = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(lightning_module=model, strategy=device, current_epoch=0)
    module.setup("fit")
    with pytest.warns(UserWarning, match="code 16, but the codec has 16 codewords"):
        assert {int(batch["index"][0]) for batch in module.train_dataloader()} == {0}


@pytest.mark.filterwarnings("ignore:.*(Skipped|Left out)")
def test_skipped_samples_do_not_hide_changed_ones(
    code_shards, image_shards, tmp_path, codec
) -> None:
    for shard in (code_shards / "codes-000001.tar", image_shards / "images-000001.tar"):
        data = bytearray(shard.read_bytes())
        with tarfile.open(shard) as archive:
            first, *others = archive.getmembers()[shard.name.startswith("codes") :]
        data[first.offset_data : first.offset_data + 100] = bytes(100)
        for other in others:
            data[other.offset_data + other.size - 1] ^= 1
        shard.write_bytes(data)
    with pytest.raises(InputError, match=r"images-000001\.tar differs from the sha256"):
        encode_shards(image_shards, tmp_path / "out", codec, max_skipped=1)
    with pytest.raises(InputError, match=r"10 of 40(.|\n)*000001\.tar: differs.*sha256.*copy"):
        ShardDataModule(str(code_shards), in_memory=True).setup("fit")
    assert not set(streamed(code_shards, in_memory=True)) & set(range(10, 20))
    for folder in (code_shards, image_shards):
        assert not set(streamed(folder)) & set(range(10, 20))
        module = ShardDataModule(str(folder), str(folder), batch_size=10)
        module.setup("fit")
        for loader in (module.train_dataloader(), module.val_dataloader()):
            with pytest.raises(InputError, match="10 of 40 could not be used"):
                list(loader)


VALUES = (None, True, -1, 0, 1, 2.5, 10**30, "x", "", [], [[]], {}, [1, 2], {"name": 1})


def mutations(value: Any) -> Iterator[Any]:
    """The JSON value with one part of it replaced by each of `VALUES`, or left out."""
    yield from VALUES
    if isinstance(value, dict):
        for key, part in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in mutations(part))
    if isinstance(value, list):
        for place, part in enumerate(value[:2]):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], m, *value[place + 1 :]] for m in mutations(part))


def test_a_manifest_of_other_types_is_an_error_or_gives_the_same_samples(code_shards) -> None:
    path = code_shards / MANIFEST
    fields = json.loads(path.read_text())
    fields["skipped"] = [{"name": "a.png", "reason": "no image", "count": 2}]
    for changed in mutations(fields):
        path.write_text(json.dumps(changed))
        with contextlib.suppress(InputError):
            shards = open_shards(code_shards)
            assert all(shard.count == 10 for shard in shards.shards)
            assert shards.count == Manifest.read(code_shards).count
    fields["shards"][0]["count"] = 0
    path.write_text(json.dumps({**fields, "count": 30}))
    with pytest.raises(InputError, match=r"codes-000000\.tar of 0 samples"):
        open_shards(code_shards)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(InputError, match=r"Expected a manifest of shards in .*nested"):
        open_shards(code_shards)
    with path.open("r+b") as stream:
        stream.truncate(1 << 36)
    with pytest.raises(InputError, match=r"Expected a manifest of shards in .*more than"):
        open_shards(code_shards)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage of one kind: bits, blocks, the length, or a header that holds with another field."""
    changed = bytearray(data)
    first, second = (BLOCK * rng.randrange(len(data) // BLOCK) for _ in range(2))
    other = data[second : second + BLOCK]
    kind = rng.choice(["bits", "block", "length", "more", "header"])
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 4, 100])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "block":
        changed[first : first + BLOCK] = rng.choice([bytes(BLOCK), rng.randbytes(BLOCK), other])
    elif kind == "length":
        del changed[rng.randrange(len(data)) :]
    elif kind == "more":
        changed[first:first] = other * rng.randrange(1, 4)
    else:
        heads = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
        at, form = rng.choice(heads), rng.choice([b"0", b"S", b"x", b"L", b"1"])
        size = rng.choice([0, 1, 511, 513, 1 << 20, 1 << 33, (1 << 40) + 1, 1 << 62, -1, -1024])
        name = rng.choice(["a.npy", "zz.__x.npy", "__codec__", "..", "", "a.jpg", "\udcff.png"])
        changed[at : at + BLOCK] = header(name, size, type=form)
    return bytes(changed)


def read_by_all(folder: Path, out: Path, codec: Any) -> list[dict[int, Any]]:
    """The samples that every reader gives by their numbers; only InputErrors are taken."""
    codes = folder.name.startswith("code")
    found = [streamed(folder), streamed(folder, in_memory=True) if codes else {}]
    for write in (
        lambda: encode_shards(folder, out / "codes", codec, max_skipped=1.0, flip=False),
        lambda: write_shards(folder, out / "images", 16, workers=1, max_skipped=1.0),
    ):
        with contextlib.suppress(InputError):
            write()
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["image", "code"])
@pytest.mark.parametrize("count", [8, pytest.param(150, marks=pytest.mark.slow)])
def test_no_mutated_shard_gives_wrong_samples(request, kind, count, tmp_path, codec) -> None:
    """Neither with its manifest nor without."""
    signal.alarm(100 + 10 * count)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    folder = request.getfixturevalue(f"{kind}_shards")
    whole = streamed(folder)
    for number in range(count):
        out, bare = tmp_path / f"out{number}", tmp_path / f"{kind}{number}"
        shard = rng.choice(sorted(folder.glob("*.tar")))
        good = shard.read_bytes()
        shard.write_bytes(changed := mutate(good, rng))
        for samples in read_by_all(folder, out, codec):
            assert all(torch.equal(found, whole[index]) for index, found in samples.items())
        encoded = (out / "codes" / MANIFEST).exists()
        assert changed == good or not encoded, "a changed shard was encoded in silence"
        bare.mkdir()
        shutil.copy(shard, bare)
        read_by_all(bare, out / "bare", codec)
        shard.write_bytes(good)
